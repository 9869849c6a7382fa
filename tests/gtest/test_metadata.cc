// SPDX-License-Identifier: Apache-2.0
//
// "ip:port?gpu?notificationPort".
#include <regex>

#include "support.h"

using namespace support;

TEST(Metadata, HasItsFourParts) {
  const Engine engine = createEngine();
  const std::string metadata = metadataOf(engine);
  std::smatch parts;
  ASSERT_TRUE(std::regex_match(metadata, parts,
                               std::regex(R"((\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.%\w]+\]):(\d+)\?(-?\d+)\?(\d+))")))
      << metadata;
  EXPECT_EQ(std::stoi(parts[2]), flagcxP2pEngineGetRpcPort(engine.get()));
  EXPECT_LE(std::stoi(parts[4]), 65535);
}

TEST(Metadata, IsTheCallersToDelete) {
  const Engine engine = createEngine();
  char *first = nullptr, *second = nullptr;
  ASSERT_EQ(flagcxP2pEngineGetMetadata(engine.get(), &first), 0);
  ASSERT_EQ(flagcxP2pEngineGetMetadata(engine.get(), &second), 0);
  EXPECT_NE(first, second);
  EXPECT_STREQ(first, second);
  delete[] first;
  delete[] second;
}

TEST(Metadata, LeadsAPeerHere) {
  const Engine client = createEngine(), server = createEngine();
  const Ends ends = connect(client, server); // splits the metadata
  EXPECT_TRUE(ends.connected && ends.accepted);
}

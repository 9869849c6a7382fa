// SPDX-License-Identifier: Apache-2.0
//
// "ip:port?gpu?notificationPort".
#include <cstdio>

#include <arpa/inet.h>

#include "support.h"

using namespace support;

TEST(Metadata, HasItsFourParts) {
  const Engine engine = createEngine();
  const std::string metadata = metadataOf(engine);
  const std::string tail = metadata.substr(metadata.rfind(':') + 1);
  int port = 0, gpu = 0, notifications = 0, length = 0;
  ASSERT_EQ(sscanf(tail.c_str(), "%d?%d?%d%n", &port, &gpu, &notifications, &length), 3) << metadata;
  EXPECT_EQ(length, static_cast<int>(tail.size())) << metadata;
  EXPECT_EQ(port, flagcxP2pEngineGetRpcPort(engine.get()));
  EXPECT_GE(gpu, 0);
  EXPECT_GE(notifications, 0);
  EXPECT_LE(notifications, 65535);

  // An IPv4 address, or an IPv6 address in brackets.
  std::string host = metadata.substr(0, metadata.rfind(':'));
  const int family = host.front() == '[' ? AF_INET6 : AF_INET;
  if (family == AF_INET6) {
    ASSERT_EQ(host.back(), ']');
    host = host.substr(1, host.find_first_of("%]") - 1);
  }
  char binary[16];
  EXPECT_EQ(inet_pton(family, host.c_str(), binary), 1) << metadata;
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

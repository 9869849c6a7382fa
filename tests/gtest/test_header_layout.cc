// SPDX-License-Identifier: Apache-2.0
//
// The types of flagcx_p2p.h as a program compiled against the original header sees them.
#include <cstddef>
#include <cstring>

#include <gtest/gtest.h>

#include "flagcx_p2p.h"

TEST(HeaderLayout, SizesAreThoseOfTheOriginal) {
  EXPECT_EQ(sizeof(FlagcxP2pRdmaDesc), 64u);
  EXPECT_EQ(sizeof(FlagcxTransferTask), 48u);
  EXPECT_EQ(sizeof(FlagcxSlice), 48u);
  EXPECT_EQ(sizeof(FlagcxP2pNotifyMsg), 512u);
  EXPECT_EQ(sizeof(FlagcxP2pMd), 512u);
  EXPECT_EQ(sizeof(FlagcxP2pGlobalConfig), 112u);
  EXPECT_EQ(sizeof(FlagcxP2pMr), 8u);
}

TEST(HeaderLayout, ConstantsAreThoseOfTheOriginal) {
  EXPECT_EQ(FLAGCX_P2P_MSG_SIZE, 256);
  EXPECT_EQ(FLAGCX_P2P_DESC_SIZE, 64);
  EXPECT_EQ(FLAGCX_P2P_IPC_INFO_SIZE, 128);
  EXPECT_EQ(kFlagcxP2pMaxQpsPerEngine, 8);
}

TEST(HeaderLayout, ConfigDefaultsAreThoseOfTheOriginal) {
  const FlagcxP2pGlobalConfig config;
  EXPECT_EQ(config.qpsPerConn, 4);
  EXPECT_EQ(config.workersPerPool, 4);
  EXPECT_EQ(config.shardCount, 8);
  EXPECT_EQ(config.sharedCqDepth, 4096u);
  EXPECT_EQ(config.maxWrPerPost, 256u);
  EXPECT_EQ(config.maxRequests, 256u);
  EXPECT_EQ(config.batchPollSize, 64u);
  EXPECT_EQ(config.sliceSize, 1073741824u);
  EXPECT_EQ(config.fragmentLimit, 4096u);
  EXPECT_EQ(config.maxSge, 4u);
  EXPECT_EQ(config.maxInline, 64u);
  EXPECT_EQ(config.ibPort, 1);
  EXPECT_EQ(config.gidIndex, -1);
  EXPECT_EQ(config.mtuLength, 4096);
  EXPECT_EQ(config.ibTrafficClass, -1);
  EXPECT_EQ(config.retryCnt, 7);
  EXPECT_EQ(config.notifMaxPeers, 64);
  EXPECT_FALSE(config.enableDestDeviceAffinity);
}

TEST(HeaderLayout, ADescriptorSerializesByteForByte) {
  FlagcxP2pRdmaDesc desc;
  desc.addr = 0x0807060504030201;
  desc.size = 0x0c0b0a09;
  desc.rkey = 0x100f0e0d;
  desc.nmsgs = 0x14131211;
  desc.rid = 0x18171615;
  desc.idx = 0x201f1e1d1c1b1a19;
  for (int i = 0; i < 32; ++i) desc.padding[i] = static_cast<char>(0x21 + i);

  char image[1 + 64 + 1]; // one byte off alignment, and a guard at either end
  memset(image, 0x7f, sizeof(image));
  flagcxP2pSerializeRdmaDesc(desc, image + 1);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(image[1 + i], i + 1) << "byte " << i;
  EXPECT_EQ(image[0], 0x7f);
  EXPECT_EQ(image[65], 0x7f);

  FlagcxP2pRdmaDesc back;
  flagcxP2pDeserializeRdmaDesc(image + 1, &back);
  EXPECT_EQ(memcmp(&back, &desc, sizeof(desc)), 0);
}

// SPDX-License-Identifier: Apache-2.0
//
// Slices and tasks of the public header: counting how the parts of a transfer ended.
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "flagcx_p2p.h"

namespace {

void mark(FlagcxTransferTask &task, int successes, int failures) {
  FlagcxSlice slice;
  slice.task = &task;
  for (int i = 0; i < successes; ++i) slice.markSuccess();
  for (int i = 0; i < failures; ++i) slice.markFailed();
}

} // namespace

TEST(Task, StartsEmpty) {
  const FlagcxTransferTask task;
  EXPECT_EQ(task.sliceCount, 0u);
  EXPECT_EQ(task.doneSliceCount, 0u);
  EXPECT_EQ(task.failedCount, 0u);
  EXPECT_TRUE(task.sliceList.empty());
  EXPECT_FALSE(task.hasErrors());
}

TEST(Task, WithoutSlicesIsNotDone) {
  const FlagcxTransferTask task;
  EXPECT_FALSE(task.isAllDone());
}

TEST(Task, IsDoneWithItsLastSlice) {
  FlagcxTransferTask task;
  task.sliceCount = 3;
  mark(task, 2, 0);
  EXPECT_FALSE(task.isAllDone());
  mark(task, 1, 0);
  EXPECT_TRUE(task.isAllDone());
  EXPECT_FALSE(task.hasErrors());
}

TEST(Task, FailuresCountAsDoneAndAsErrors) {
  FlagcxTransferTask task;
  task.sliceCount = 5;
  mark(task, 3, 2);
  EXPECT_TRUE(task.isAllDone());
  EXPECT_TRUE(task.hasErrors());
  EXPECT_EQ(task.doneSliceCount, 5u);
  EXPECT_EQ(task.failedCount, 2u);
}

TEST(Slice, HasDefaults) {
  const FlagcxSlice slice;
  EXPECT_EQ(slice.srcVa, 0u);
  EXPECT_EQ(slice.dstVa, 0u);
  EXPECT_EQ(slice.length, 0u);
  EXPECT_EQ(slice.lkey, 0u);
  EXPECT_EQ(slice.rkey, 0u);
  EXPECT_EQ(slice.opcode, FLAGCX_SLICE_OP_WRITE);
  EXPECT_EQ(slice.task, nullptr);
  EXPECT_EQ(slice.qpDepth, nullptr);
}

TEST(Slice, WithoutTaskMayBeMarked) {
  FlagcxSlice slice;
  slice.markSuccess();
  slice.markFailed();
}

TEST(Slice, IsAnAggregate) {
  FlagcxTransferTask task;
  volatile int depth = 3;
  const FlagcxSlice whole{0x1000, 0x2000, 4096, 11, 22, FLAGCX_SLICE_OP_READ, &task, &depth};
  EXPECT_EQ(whole.srcVa, 0x1000u);
  EXPECT_EQ(whole.dstVa, 0x2000u);
  EXPECT_EQ(whole.length, 4096u);
  EXPECT_EQ(whole.lkey, 11u);
  EXPECT_EQ(whole.rkey, 22u);
  EXPECT_EQ(whole.opcode, FLAGCX_SLICE_OP_READ);
  EXPECT_EQ(whole.task, &task);
  EXPECT_EQ(whole.qpDepth, &depth);

  const FlagcxSlice part = FlagcxSlice{0x1000, 0x2000, 4096};
  EXPECT_EQ(part.length, 4096u);
  EXPECT_EQ(part.rkey, 0u);
  EXPECT_EQ(part.task, nullptr);
}

TEST(Slice, ManyThreadsMayMarkSlicesOfOneTask) {
  constexpr int kThreads = 4, kPerThread = 250;
  FlagcxTransferTask task;
  task.sliceCount = kThreads * kPerThread;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back([&task] { mark(task, kPerThread - 10, 10); });
  for (std::thread &thread : threads) thread.join();
  EXPECT_TRUE(task.isAllDone());
  EXPECT_EQ(task.doneSliceCount, 1000u);
  EXPECT_EQ(task.failedCount, 40u);
}

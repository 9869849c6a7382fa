// SPDX-License-Identifier: Apache-2.0
//
// Inside FlagCX: this program has a flagcxDebugLog, so the engine's lines go there and nowhere else. Like FlagCX's it
// leaves out lines of every level, warnings too, that have no subsystem in common with FLAGCX_DEBUG_SUBSYS.
#include <cstdarg>
#include <cstdlib>
#include <mutex>

#include "net_support.h"

enum flagcxDebugLogLevel : unsigned int {};

namespace {

struct Line {
  unsigned level;
  unsigned long flags;
  std::string place, text;
};
std::mutex mutex;
std::vector<Line> lines;

constexpr unsigned kWarn = 2, kInfo = 3;
constexpr unsigned long kInit = 1, kEnv = 128, kAll = ~0ul;

// Of FLAGCX_DEBUG_SUBSYS; this is what it is by default.
constexpr unsigned long kMask = kInit | kEnv;

} // namespace

void flagcxDebugLog(flagcxDebugLogLevel level, unsigned long flags, const char *filefunc, int, const char *format,
                    ...) {
  if ((flags & kMask) == 0)
    return;
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  const std::lock_guard<std::mutex> guard(mutex);
  lines.push_back({level, flags, filefunc, text});
}

namespace {

// The first line that holds `part`; an empty one if there is none.
Line lineWith(const std::string &part) {
  const std::lock_guard<std::mutex> guard(mutex);
  for (const Line &line : lines)
    if (line.text.find(part) != std::string::npos)
      return line;
  return {};
}

TEST(FlagcxLog, WarningsPassEveryMaskAndOtherLinesHaveTheirSubsystem) {
  setenv("FLAGCX_DEBUG", "INFO", 1);
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();

  EXPECT_EQ(flagcxP2pEngineConnect(nullptr, "127.0.0.1", 0, 1), nullptr);
  EXPECT_EQ(flagcxNetIbP2p.isend(nullptr, nullptr, 0, 0, nullptr, nullptr, nullptr), flagcxInternalError);
  support::createEngine();

  const Line refusal = lineWith("flagcxP2pEngineConnect: engine is NULL");
  EXPECT_EQ(refusal.level, kWarn);
  EXPECT_EQ(refusal.flags, kAll);
  EXPECT_EQ(refusal.place, "flagcx_p2p");
  EXPECT_EQ(lineWith("flagcxNetIbP2p.isend").level, kWarn);
  EXPECT_EQ(lineWith("flagcxNetIbP2p.isend").flags, kAll);
  const Line opened = lineWith("engine open");
  EXPECT_EQ(opened.level, kInfo);
  EXPECT_EQ(opened.flags, kInit);
  for (const Line &line : lines) {
    EXPECT_TRUE(line.flags == kAll || line.level > kWarn) << line.text;
    EXPECT_EQ(line.text.find('\n'), std::string::npos) << line.text;
    EXPECT_EQ(line.text.find('\033'), std::string::npos) << line.text;
  }
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(FlagcxLog, TwoSidedMembersWarnOnce) {
  lines.clear();
  EXPECT_EQ(flagcxNetIbP2p.iputSignal(nullptr, 0, 0, 0, 0, 0, nullptr, nullptr, 0, nullptr, 0, nullptr),
            flagcxInternalError);
  EXPECT_EQ(lines.size(), 1u);
}

TEST(FlagcxLog, PercentSignsAreText) {
  setenv("FLAGCX_DEBUG", "INFO", 1);
  FlagcxP2pEngine *const engine = flagcxP2pEngineCreate();
  EXPECT_EQ(flagcxP2pEngineGetConn(engine, "%s%n%s"), nullptr);
  flagcxP2pEngineDestroy(engine);
  EXPECT_NE(lineWith("%s%n%s").text, "");
}

} // namespace

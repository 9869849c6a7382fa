// SPDX-License-Identifier: Apache-2.0
//
// Loads the plugin like an application, and calls it.
#include <cstdio>
#include <dlfcn.h>

int main(int, char **argv) {
  void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (plugin == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  auto metadata = reinterpret_cast<int (*)(char *, size_t)>(dlsym(plugin, "plugin_metadata"));
  char text[256];
  if (metadata == nullptr || metadata(text, sizeof(text)) != 0) {
    return 1;
  }
  std::printf("%s\n", text);
  return 0;
}

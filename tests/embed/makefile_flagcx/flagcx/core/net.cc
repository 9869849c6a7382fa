// Stands for the rest of FlagCX, which refers to nothing of the engine: without --whole-archive the linker would leave
// the whole engine out of libflagcx.so.
extern "C" int flagcxGetVersion(int *version) {
  *version = 1300;
  return 0;
}

// Stands for the original engine. It must have been left out of the build.
#error "flagcx_p2p.cc was not filtered out"

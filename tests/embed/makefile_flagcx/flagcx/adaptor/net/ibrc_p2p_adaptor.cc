// Stands for the original adaptor. It must have been left out of the build.
#error "ibrc_p2p_adaptor.cc was not filtered out"

package reeve

// Version of this build, set by the linker (see Makefile).
var Version = "dev"

"""C++ for the few computations that torch has no fast kernel for, each beside the same in torch.

A kernel is two files:

    sources/<name>.cpp   one function `KERNEL(<name>)`, a plain C function on pointers and sizes, that
                         returns 0; compiled once for each level of instructions (build.py's LEVELS)
    <name>.py            the same in plain torch; the operator torch.ops.espnet_lite.<name>, which on a
                         CPU calls the C++ where there is any and else computes in torch; its FLOPs

and a line in flops.py. docs/kernels.md says how to add one. The C++ is compiled when it is first called
(seconds; or ahead, by `make kernels` and at set-up) into a cache in the home folder, and loaded with
ctypes: it includes nothing of torch and so needs neither its headers nor its C++ ABI. Without a
compiler everything is computed in torch, which is said once.

Environment: ESPNET_LITE_KERNELS        avx512, avx2 or portable: no higher level; torch: no C++ at all
             ESPNET_LITE_KERNELS_CACHE  folder of the compiled libraries
             ESPNET_LITE_KERNELS_FLAGS  more flags for the compiler, as -fsanitize=address
             CXX                        compiler (default: g++, else c++)
"""

// Which of the levels this processor can run.

#include "lanes.h"

// Return 2 for avx512, 1 for avx2, 0 for portable; the numbers are places in build.py's LEVELS.
KERNEL(cpu_level)() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return has_avx512 ? 2 : 1;
#else
    return 0;
#endif
}

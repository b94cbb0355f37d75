// Which of the levels this processor can run.

#include "lanes.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined(__x86_64__)
// The tiles of AMX hold 8 KB that the system saves with a thread; it wants to be asked first.
bool tiles_are_granted() {
#if defined(__linux__)
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

bool has_amx() {
    unsigned a = 7, b = 0, c = 0, d = 0;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    const bool has_tiles = (d >> 24 & 1) && (d >> 25 & 1);  // AMX-TILE and AMX-INT8
    return has_tiles && tiles_are_granted();
}
#endif

}  // namespace

// Return 4 for amx, 3 for vnni, 2 for avx512, 1 for avx2, 0 for portable; the numbers are places in
// build.py's LEVELS.
KERNEL(cpu_level)() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!has_avx512) return 1;
    if (!__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512vpopcntdq")) return 2;
    return has_amx() ? 4 : 3;
#else
    return 0;
#endif
}

// Which kind of machine this is, and what compiles a function for one: one library serves them all.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace aligncli {

enum class Machine { plain, avx2, avx512 };

#if defined(__x86_64__)
#define ALIGNCLI_AVX512_BF16 __attribute__((target("avx512f,avx512bf16")))
#define ALIGNCLI_AVX512 __attribute__((target("avx512f")))
#define ALIGNCLI_AVX2 __attribute__((target("avx2,fma")))

inline Machine machine() {
  static const Machine found = __builtin_cpu_supports("avx512f")                                 ? Machine::avx512
                               : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? Machine::avx2
                                                                                                 : Machine::plain;
  return found;
}

inline bool runs_small_tiles() { return machine() != Machine::plain; }

inline bool has_bfloat16() {
  static const bool found = machine() == Machine::avx512 && __builtin_cpu_supports("avx512bf16");
  return found;
}

// Whether it multiplies whole matrices of bfloat16 (AMX), as oneDNN knows to.
inline bool has_matrix_products() {
  static const bool found = [] {  // once: a virtual machine is left for each cpuid
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1) != 0;
  }();
  return found;
}
#else
#define ALIGNCLI_AVX512
#define ALIGNCLI_AVX2

inline Machine machine() { return Machine::plain; }
inline bool runs_small_tiles() { return true; }  // which any compiler makes, if slow ones
inline bool has_bfloat16() { return false; }
inline bool has_matrix_products() { return false; }
#endif

}  // namespace aligncli

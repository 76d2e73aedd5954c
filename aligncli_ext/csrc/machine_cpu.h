// Which kind of machine this is, and what compiles a function for one: one library serves them all.
#pragma once

namespace aligncli {

#if defined(__x86_64__)
#define ALIGNCLI_AVX512 __attribute__((target("avx512f")))
#define ALIGNCLI_AVX2 __attribute__((target("avx2,fma")))
constexpr bool kHasMachines = true;
#else
#define ALIGNCLI_AVX512
#define ALIGNCLI_AVX2
constexpr bool kHasMachines = false;
#endif

enum class Machine { plain, avx2, avx512 };

inline Machine machine() {
#if defined(__x86_64__)
  static const Machine found = __builtin_cpu_supports("avx512f")                                 ? Machine::avx512
                               : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? Machine::avx2
                                                                                                 : Machine::plain;
  return found;
#else
  return Machine::plain;
#endif
}

}  // namespace aligncli

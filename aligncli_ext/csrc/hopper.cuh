// Hopper's own instructions: barriers that count bytes, bulk copies, and tiles of shared memory as wgmma reads them.
#pragma once

#include "numbers.cuh"

namespace aligncli {

constexpr int ROW_BYTES = 128;  // of a swizzled tile

using Address = unsigned;  // in shared memory

ALIGNCLI_DEVICE Address shared_address(const void* pointer) {
  return static_cast<Address>(__cvta_generic_to_shared(pointer));
}

// A 16-byte piece of a row, where the 128-byte swizzle puts it: rows are 128 bytes apart and the tile starts at a
// multiple of 1,024.
ALIGNCLI_DEVICE int swizzled(int row, int piece) { return row * ROW_BYTES + (piece ^ (row & 7)) * 16; }

// What wgmma is told of such a tile: its address, and 1,024 bytes between groups of eight rows.
ALIGNCLI_DEVICE unsigned long long descriptor(Address tile) {
  constexpr unsigned long long swizzle_128 = 1ull << 62, group_stride = (1024ull >> 4) << 32, unused = 1ull << 16;
  return swizzle_128 | group_stride | unused | ((tile & 0x3ffffu) >> 4);
}

ALIGNCLI_DEVICE void init_barrier(Address barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

ALIGNCLI_DEVICE void arrive(Address barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

ALIGNCLI_DEVICE void arrive_and_expect(Address barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

ALIGNCLI_DEVICE void wait(Address barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni finished;\n"
      "bra.uni again;\n"
      "finished:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

ALIGNCLI_DEVICE void copy_in_bulk(Address to, const void* from, int bytes, Address barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier)
      : "memory");
}

// What a thread wrote to shared memory is seen by the tensor cores.
ALIGNCLI_DEVICE void show_to_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace aligncli

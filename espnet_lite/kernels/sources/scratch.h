// Memory of the thread that calls, kept from one call to the next: a kernel is called a dozen times
// for an utterance, and to get megabytes from the system takes longer than some of what it does
// with them.
#pragma once

#include <cstdlib>

#include "lanes.h"

namespace {

constexpr int64_t KEPT_BYTES = 64 << 20;  // more is given back at once

class Scratch {
    uint8_t* memory_ = nullptr;
    int64_t bytes_ = 0;

public:
    ~Scratch() { std::free(memory_); }

    // At least `bytes`, aligned to 64; null where there are none. What was there before is lost.
    uint8_t* take(int64_t bytes) {
        if (bytes > bytes_) {
            std::free(memory_);
            bytes_ = (bytes + 63) / 64 * 64;
            memory_ = static_cast<uint8_t*>(std::aligned_alloc(64, (size_t)bytes_));
            if (!memory_) bytes_ = 0;
        }
        return memory_;
    }
    void release() {
        if (bytes_ <= KEPT_BYTES) return;
        std::free(memory_);
        memory_ = nullptr;
        bytes_ = 0;
    }
};

thread_local Scratch scratch;

}  // namespace

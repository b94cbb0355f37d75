// GELU(sum · scale + shift) of a convolution over a waveform, of floats or as the codes of what comes
// next: the first layer of a front end, whose norm over time is in scale and shift. See
// ../waveform_convolution.py for what it computes.

#include <omp.h>

#include "codes.h"

namespace {

constexpr int FRAMES = 8;            // whose sums stay in registers
constexpr int64_t AT_ONCE = 32 * FRAMES;  // of a thread

struct Layer {
    const float* weight;          // (kernel, channels padded)
    const float *scale, *shift;   // (batch, channels padded)
    int64_t channels, padded, kernel, stride;
    int32_t gives_codes, reserved;
    Quantizer output;
};

struct Waveform {
    const float* x;  // (batch, samples)
    int64_t x_stride, batch;
    float* out;         // (batch, frames, channels), or null, and
    int8_t* out_codes;  // the same as codes
    int64_t frames;
};

template <int COUNT, int KIND>
inline void convolve(const Layer& layer, const Waveform& wave, int64_t batch, int64_t frame) {
    const Divisor by(layer.output.scale);
    const float* x = wave.x + batch * wave.x_stride + frame * layer.stride;
    const int64_t to = (batch * wave.frames + frame) * layer.channels;
    for (int64_t channel = 0; channel < layer.channels; channel += LANES) {
        Floats sums[COUNT];
#pragma GCC unroll 8
        for (int i = 0; i < COUNT; ++i) sums[i] = Floats{};
        for (int64_t tap = 0; tap < layer.kernel; ++tap) {
            const Floats weight = load(layer.weight + tap * layer.padded + channel);
#pragma GCC unroll 8
            for (int i = 0; i < COUNT; ++i) sums[i] += weight * x[i * layer.stride + tap];
        }
        const Floats scale = load(layer.scale + batch * layer.padded + channel);
        const Floats shift = load(layer.shift + batch * layer.padded + channel);
        const int64_t left = layer.channels - channel;
#pragma GCC unroll 8
        for (int i = 0; i < COUNT; ++i) {
            const Floats y = gelu(sums[i] * scale + shift);
            if constexpr (KIND == ABSMAX) {  // of which there are none: floats
                store_some(wave.out + to + i * layer.channels + channel, y, left);
            } else {
                const Ints lanes = codes_of<KIND>(y, layer.output, by);
                store_some(wave.out_codes + to + i * layer.channels + channel,
                           __builtin_convertvector(lanes, ByteLanes), left);
            }
        }
    }
}

template <int KIND>
inline void convolve_some(const Layer& layer, const Waveform& wave, int64_t batch, int64_t frame,
                          int64_t end) {
    for (; frame + FRAMES <= end; frame += FRAMES)
        convolve<FRAMES, KIND>(layer, wave, batch, frame);
    for (; frame < end; ++frame) convolve<1, KIND>(layer, wave, batch, frame);
}

}  // namespace

// Fill out or out_codes; return 0.
KERNEL(waveform_convolution)(const Layer* layer_given, const Waveform* wave_given, int threads) {
    const Layer layer = *layer_given;
    const Waveform wave = *wave_given;
    const int64_t pieces = (wave.frames + AT_ONCE - 1) / AT_ONCE;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t item = 0; item < wave.batch * pieces; ++item) {
        const int64_t batch = item / pieces, frame = item % pieces * AT_ONCE;
        const int64_t end = frame + AT_ONCE < wave.frames ? frame + AT_ONCE : wave.frames;
        switch (layer.gives_codes ? layer.output.kind : ABSMAX) {
            case LSQ: convolve_some<LSQ>(layer, wave, batch, frame, end); break;
            case SIGN: convolve_some<SIGN>(layer, wave, batch, frame, end); break;
            case BINARY: convolve_some<BINARY>(layer, wave, batch, frame, end); break;
            default: convolve_some<ABSMAX>(layer, wave, batch, frame, end);
        }
    }
    return 0;
}

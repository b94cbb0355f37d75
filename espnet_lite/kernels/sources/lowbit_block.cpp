// A whole block of an encoder whose products multiply integers, in one parallel region. See
// ../lowbit_block.py for what it computes.
//
// A block is a list of steps. Those that make rows of rows (Linear, LayerNorm) follow one another
// on some rows by one thread, whose cache these stay in; threads meet only before and after what
// mixes frames.

#include <omp.h>

#include "attention_heads.h"
#include "depthwise_frames.h"
#include "linear_rows.h"
#include "scratch.h"

namespace {

constexpr int64_t MOST_ROWS = 192;  // that one thread takes through the steps at a time

enum StepKind : int32_t { PRODUCT = 0, NORMALIZE = 1, ATTEND = 2, CONVOLVE = 3 };

// What steps read and write; each is (batch · frames, its width). OWN has only the rows at hand.
enum Buffer : int32_t { NONE = -1, INPUT = 0, OUTPUT = 1, WIDE = 2, MIXED = 3, OWN = 4 };
constexpr int BUFFERS = 5;

struct Step {
    int32_t kind, source, target, residual;  // Buffers; target = residual + factor · result
    int64_t column;                          // of the target, from which on it is written
    float factor;
    int32_t reserved;
    const void* module;  // Weights of PRODUCT, Attention of ATTEND, Depthwise of CONVOLVE
    const Norm* norm;    // of PRODUCT, before it, and of NORMALIZE
};

struct Block {
    const Step* steps;
    int64_t count;
    int64_t widths[BUFFERS];  // floats from row to row
};

struct Call {
    const float* x;  // (batch, frames, width of INPUT)
    float* out;      // (batch, frames, width of OUTPUT)
    int64_t batch, frames;
    const uint8_t* valid;     // (batch, frames), or null
    const float* rotation;    // (2, frames, head_dim / 2), or null
    const float* positions;   // (2 · frames − 1, heads · head_dim), or null
};

inline bool makes_rows(const Step& step) { return step.kind == PRODUCT || step.kind == NORMALIZE; }

// Where everything is.
struct Memory {
    float* buffers[BUFFERS];
    int64_t widths[BUFFERS];

    float* at(int32_t buffer, int64_t row) const {
        return buffers[buffer] + (buffer == OWN ? 0 : row * widths[buffer]);
    }
};

// Memory of a thread for the codes of its rows.
struct CodeRoom {
    uint8_t *codes, *panels;
    float *scales, *normalized;
    int32_t* terms;
};

// How large the rooms have to be for all steps.
struct RoomSizes {
    int64_t codes = 0, panels = 0, rows = 0, numbers = 0;

    RoomSizes(const Block& block, int64_t chunk) {
        const int64_t padded = in_whole(chunk, TILE_ROWS);
        for (int64_t i = 0; i < block.count; ++i) {
            if (block.steps[i].kind != PRODUCT) continue;
            const Layout layout(*static_cast<const Weights*>(block.steps[i].module));
            const int64_t all_codes = in_whole(padded * layout.code_bytes, 64);
            if (all_codes > codes) codes = all_codes;
            if (layout.room_bytes > panels) panels = layout.room_bytes;
            if (layout.row_bytes > rows) rows = layout.row_bytes;
        }
        numbers = in_whole(4 * padded, 64);
    }
    int64_t bytes() const { return codes + panels + rows + 2 * numbers; }
    CodeRoom room(uint8_t* at) const {
        CodeRoom room;
        room.codes = at;
        room.panels = at + codes;
        room.normalized = reinterpret_cast<float*>(room.panels + panels);
        room.scales = reinterpret_cast<float*>(room.panels + panels + rows);
        room.terms = reinterpret_cast<int32_t*>(room.panels + panels + rows + numbers);
        return room;
    }
};

// A step of some rows, from number `first` to `end`.
inline void step_of_rows(const Step& step, const Memory& memory, int64_t first, int64_t end,
                         const CodeRoom& room) {
    const int64_t source_width = memory.widths[step.source], count = end - first;
    const float* x = memory.at(step.source, first);
    const Norm norm = step.norm ? *step.norm : Norm{};
    if (step.kind == NORMALIZE) {
        float* to = memory.at(step.target, first);
        for (int64_t row = 0; row < count; ++row)
            normalize(x + row * source_width, source_width, norm,
                      to + row * memory.widths[step.target]);
        return;
    }
    const Weights& weights = *static_cast<const Weights*>(step.module);
    const Layout layout(weights);
    Rows rows = {};
    rows.count = count;
    rows.out = memory.at(step.target, first) + step.column;
    rows.out_stride = memory.widths[step.target];
    rows.factor = step.factor;
    if (step.residual != NONE) {
        rows.residual = memory.at(step.residual, first);
        rows.residual_stride = memory.widths[step.residual];
    }
    for (int64_t row = 0; row < count; ++row)
        codes_of_input(x + row * source_width, weights, norm, layout,
                       room.codes + row * layout.code_bytes, room.scales + row, room.terms + row,
                       room.normalized);
    const int64_t padded = in_whole(count, TILE_ROWS);
    __builtin_memset(room.codes + count * layout.code_bytes, 0,
                     (size_t)((padded - count) * layout.code_bytes));
    for (int64_t panel = 0; panel < weights.panel_count; panel += layout.at_once) {
        const int64_t left = weights.panel_count - panel;
        const Range range = {panel, panel + (left < layout.at_once ? left : layout.at_once), 0, count};
        multiply(range, weights, rows, room.codes, room.scales, room.terms, layout.depth, room.panels);
    }
}

// The attention of a step, with the buffers of this call.
inline Attention attention_of(const Step& step, const Memory& memory, const Call& call) {
    Attention a = *static_cast<const Attention*>(step.module);
    const int64_t width = memory.widths[step.source], dim = a.heads * a.head_dim;
    Operand* operands[] = {&a.query, &a.key, &a.value};
    for (int i = 0; i < 3; ++i) {
        operands[i]->x = memory.at(step.source, 0) + i * dim;
        operands[i]->batch = call.frames * width;
        operands[i]->head = a.head_dim;
        operands[i]->frame = width;
    }
    if (call.positions && a.positions.quantizers) {
        a.position_query.x = a.query.x;
        a.position_query.batch = a.query.batch;
        a.position_query.head = a.query.head;
        a.position_query.frame = a.query.frame;
        a.positions.x = call.positions;
        a.positions.head = a.head_dim;
        a.positions.frame = dim;
    }
    a.rotation = call.rotation;
    a.key_valid = call.valid;
    a.out = memory.at(step.target, 0);
    a.out_frame = memory.widths[step.target];
    a.out_head = a.head_dim;
    a.out_batch = call.frames * a.out_frame;
    a.batch = call.batch;
    a.frames = call.frames;
    if (a.window < 0 || a.window > a.frames) a.window = a.frames;
    if (a.global_tokens > a.frames) a.global_tokens = a.frames;
    return a;
}

inline Frames frames_of(const Step& step, const Memory& memory, const Call& call) {
    Frames frames = {};
    frames.x = memory.at(step.source, 0);
    frames.frame_stride = memory.widths[step.source];
    frames.batch_stride = call.frames * frames.frame_stride;
    frames.batch = call.batch;
    frames.frames = frames.frames_out = call.frames;
    frames.valid = call.valid;
    frames.out = memory.at(step.target, 0);
    frames.out_stride = memory.widths[step.target];
    return frames;
}

// Bytes that all steps that mix frames can have one after the other.
inline int64_t bytes_to_mix(const Block& block, const Memory& memory, const Call& call, int threads) {
    int64_t most = 0;
    for (int64_t i = 0; i < block.count; ++i) {
        const Step& step = block.steps[i];
        int64_t bytes = 0;
        if (step.kind == ATTEND) bytes = Plan(attention_of(step, memory, call)).bytes(threads);
        if (step.kind == CONVOLVE)
            bytes = threads * Shape(*static_cast<const Depthwise*>(step.module),
                                    frames_of(step, memory, call)).bytes;
        if (bytes > most) most = bytes;
    }
    return in_whole(most, 64);
}

}  // namespace

// Fill call->out; return 0, or 1 where there is no memory.
KERNEL(lowbit_block)(const Block* block_given, const Call* call_given, int threads) {
    const Block block = *block_given;
    Call call = *call_given;
    const int64_t rows = call.batch * call.frames;
    if (call.valid && !__builtin_memchr(call.valid, 0, (size_t)rows)) call.valid = nullptr;
    const int64_t fair = in_whole((rows + threads - 1) / threads, TILE_ROWS);
    const int64_t chunk = fair < MOST_ROWS ? fair : MOST_ROWS;
    const RoomSizes sizes(block, chunk);

    Memory shared;
    __builtin_memcpy(shared.widths, block.widths, sizeof shared.widths);
    for (float*& buffer : shared.buffers) buffer = call.out;  // until there is memory
    const int64_t wide_bytes = in_whole(4 * rows * block.widths[WIDE], 64);
    const int64_t mixed_bytes = in_whole(4 * rows * block.widths[MIXED], 64);
    const int64_t own_bytes = in_whole(4 * chunk * block.widths[OWN], 64);
    const int64_t of_thread = own_bytes + sizes.bytes();
    const int64_t mixing = bytes_to_mix(block, shared, call, threads);
    uint8_t* memory = scratch.take(wide_bytes + mixed_bytes + mixing + threads * of_thread);
    if (!memory) return 1;
    uint8_t* to_mix = memory + wide_bytes + mixed_bytes;
    shared.buffers[INPUT] = const_cast<float*>(call.x);  // no step writes there
    shared.buffers[OUTPUT] = call.out;
    shared.buffers[WIDE] = reinterpret_cast<float*>(memory);
    shared.buffers[MIXED] = reinterpret_cast<float*>(memory + wide_bytes);
    shared.buffers[OWN] = nullptr;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const int thread = threads > 1 ? omp_get_thread_num() : 0;
        uint8_t* own = to_mix + mixing + thread * of_thread;
        Memory all = shared;
        all.buffers[OWN] = reinterpret_cast<float*>(own);
        const CodeRoom codes = sizes.room(own + own_bytes);
        Tiles tiles;
        (void)tiles;
        for (int64_t at = 0; at < block.count;) {
            const Step& step = block.steps[at];
            if (step.kind == ATTEND) {
                const Plan plan(attention_of(step, all, call));
                const Room room = plan.room(to_mix, thread);
#pragma omp for schedule(dynamic, 1)
                for (int64_t item = 0; item < plan.to_prepare(); ++item)
                    plan.prepare(to_mix, item, room);
#pragma omp for schedule(dynamic, 1)
                for (int64_t item = 0; item < plan.to_mix(); ++item) plan.mix(to_mix, item, room);
                ++at;
            } else if (step.kind == CONVOLVE) {
                const Depthwise& layer = *static_cast<const Depthwise*>(step.module);
                const Frames frames = frames_of(step, all, call);
                const Shape shape(layer, frames);
                Ints* fours = reinterpret_cast<Ints*>(to_mix + thread * shape.bytes);
#pragma omp for schedule(dynamic, 1)
                for (int64_t item = 0; item < frames.batch * shape.blocks; ++item)
                    convolve(layer, frames, item / shape.blocks, item % shape.blocks * LANES,
                             shape.rows, fours);
                ++at;
            } else {
                int64_t end = at;
                while (end < block.count && makes_rows(block.steps[end])) ++end;
#pragma omp for schedule(static, 1)
                for (int64_t first = 0; first < rows; first += chunk) {
                    const int64_t last = first + chunk < rows ? first + chunk : rows;
                    for (int64_t i = at; i < end; ++i)
                        step_of_rows(block.steps[i], all, first, last, codes);
                }
                at = end;
            }
        }
    }
    scratch.release();
    return 0;
}

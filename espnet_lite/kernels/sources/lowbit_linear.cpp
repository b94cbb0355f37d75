// y = activation(Σ codes · weights · scales + bias), of floats, with the input quantized on the way:
// (LayerNorm of a row, codes of it), then products of integers, then what follows a Linear, all in one
// parallel region. See ../lowbit_linear.py for what it computes.

#include <cstdlib>
#include <omp.h>

#include "linear_rows.h"

// Fill rows->out; return 0, or 1 where there is no memory for the codes.
KERNEL(lowbit_linear)
(const Weights* weights_given, const Norm* norm_given, const Rows* rows_given, int threads) {
    const Weights weights = *weights_given;
    const Norm norm = *norm_given;
    const Rows rows = *rows_given;
    const Layout layout(weights);
    const int64_t padded = in_whole(rows.count, TILE_ROWS);

    // A range: so many panels that each thread gets some.
    const int64_t panels = weights.panel_count;
    const int64_t fair = in_whole((panels + 4 * threads - 1) / (4 * threads), layout.unit);
    const int64_t at_once = layout.at_once < fair ? layout.at_once : fair;
    const int64_t column_ranges = (panels + at_once - 1) / at_once;
    const int64_t wanted = (4 * threads + column_ranges - 1) / column_ranges;
    const int64_t rows_at_once =
        threads > 1 ? in_whole((rows.count + wanted - 1) / wanted, TILE_ROWS) : padded;
    const int64_t row_ranges = (rows.count + rows_at_once - 1) / rows_at_once;

    const int64_t of_thread = layout.room_bytes + layout.row_bytes;
    const int64_t all_codes = in_whole(padded * layout.code_bytes, 64);
    const int64_t numbers = in_whole(4 * padded, 64);
    uint8_t* codes = static_cast<uint8_t*>(
        std::aligned_alloc(64, (size_t)(all_codes + 2 * numbers + threads * of_thread)));
    if (!codes) return 1;
    float* scales = reinterpret_cast<float*>(codes + all_codes);
    int32_t* terms = reinterpret_cast<int32_t*>(codes + all_codes + numbers);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const int thread = threads > 1 ? omp_get_thread_num() : 0;
        uint8_t* room = codes + all_codes + 2 * numbers + thread * of_thread;
        float* normalized = reinterpret_cast<float*>(room + layout.room_bytes);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < padded; ++row) {
            uint8_t* of_row = codes + row * layout.code_bytes;
            if (row < rows.count)
                codes_of_input(rows.x + row * rows.x_stride, weights, norm, layout, of_row,
                               scales + row, terms + row, normalized);
            else
                __builtin_memset(of_row, 0, (size_t)layout.code_bytes);
        }
        Tiles tiles;
        (void)tiles;
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < column_ranges * row_ranges; ++i) {
            const int64_t panel = i / row_ranges * at_once, row = i % row_ranges * rows_at_once;
            const Range range = {panel, panel + at_once < panels ? panel + at_once : panels, row,
                                 row + rows_at_once < rows.count ? row + rows_at_once : rows.count};
            multiply(range, weights, rows, codes, scales, terms, layout.depth, room);
        }
    }
    std::free(codes);
    return 0;
}

// Attention inside windows on the CPU (Swin Transformer, arXiv 2103.14030, equation 4). Included
// twice, see vectors.h.

// ---- small matrix products ----

// A matrix of which element (i, k) is at data[i * row + k * column].
struct Strided {
  const real* data;
  int64_t row, column;
};

constexpr int64_t kTileRows = 4, kTileVectors = 3;  // 12 sums and what they need: 16 registers

// One tile of a product; `rows` and `vectors` are constants of the call, so sums stay in registers.
DDEP_INLINE void multiply_tile(Strided a, const real* b, int64_t b_row, int64_t depth, real* out,
                               int64_t out_row, const int64_t rows, const int64_t vectors) {
  vector sum[kTileRows][kTileVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    vector right[kTileVectors] = {};
    for (int64_t v = 0; v < vectors; ++v) right[v] = load(b + k * b_row + v * kLanes);
    for (int64_t i = 0; i < rows; ++i) {
      const real left = a.data[i * a.row + k * a.column];
      for (int64_t v = 0; v < vectors; ++v) sum[i][v] += right[v] * left;
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t v = 0; v < vectors; ++v) store(out + i * out_row + v * kLanes, sum[i][v]);
  }
}

DDEP_INLINE void multiply_rows(Strided a, const real* b, int64_t depth, real* out, int64_t columns,
                               const int64_t rows) {
  for (int64_t left = columns / kLanes; left > 0;) {
    // 4 vectors are better as 2 and 2 than as 3 and 1.
    const int64_t vectors = left == 4 ? 2 : left < kTileVectors ? left : kTileVectors;
    if (vectors == 3) multiply_tile(a, b, columns, depth, out, columns, rows, 3);
    if (vectors == 2) multiply_tile(a, b, columns, depth, out, columns, rows, 2);
    if (vectors == 1) multiply_tile(a, b, columns, depth, out, columns, rows, 1);
    b += vectors * kLanes, out += vectors * kLanes, left -= vectors;
  }
}

// out = a b, where a has `rows` rows and `depth` columns; rows of b and out are contiguous, and
// `columns` is a multiple of kLanes.
static void multiply(Strided a, const real* b, real* out, int64_t rows, int64_t depth,
                     int64_t columns) {
  int64_t i = 0;
  for (; i + kTileRows <= rows; i += kTileRows) {
    multiply_rows({a.data + i * a.row, a.row, a.column}, b, depth, out + i * columns, columns,
                  kTileRows);
  }
  for (; i < rows; ++i) {
    multiply_rows({a.data + i * a.row, a.row, a.column}, b, depth, out + i * columns, columns, 1);
  }
}

// ---- one head of one window ----

// What a thread needs, and reuses, for a head of a window. Queries are only those of tokens, in
// their order; keys and values are of all positions. Rows have `width` channels, zeros at the end,
// or as many columns as a row of logits.
struct HeadBuffers {
  int64_t queries = 0;
  int64_t width;
  std::vector<real> query, key, value, key_transposed, attention;
  // of the backward pass
  std::vector<real> gradient, value_transposed, grad_attention, grad_query, grad_key, grad_value;

  HeadBuffers(const WindowSizes& s, bool backward)
      : width((s.channels + kLanes - 1) / kLanes * kLanes) {
    for (auto* rows : {&query, &key, &value}) rows->resize(s.positions * width);
    key_transposed.resize(s.channels * s.columns);
    attention.resize(s.positions * s.columns);
    if (!backward) return;
    for (auto* rows : {&gradient, &grad_query, &grad_key, &grad_value}) {
      rows->resize(s.positions * width);
    }
    value_transposed.resize(s.channels * s.columns);
    grad_attention.resize(s.positions * s.columns);
  }
};

static void transpose(const WindowSizes& s, const std::vector<real>& rows, int64_t width,
                      std::vector<real>& transposed) {
  for (int64_t position = 0; position < s.positions; ++position) {
    for (int64_t channel = 0; channel < s.channels; ++channel) {
      transposed[channel * s.columns + position] = rows[position * width + channel];
    }
  }
}

// Gathers queries (times the scale), keys and values.
static void gather(const WindowSizes& s, const WindowInput<real>& input, int64_t window,
                   int64_t head, HeadBuffers& buffers) {
  const int64_t part = s.heads * s.channels;  // from a query to its key, and to its value
  const int64_t* tokens = input.tokens + window * s.positions;
  buffers.queries = 0;
  for (int64_t position = 0; position < s.positions; ++position) {
    const bool padding = tokens[position] < 0;
    const real* source =
        (padding ? input.padding : input.qkv + tokens[position] * 3 * part) + head * s.channels;
    std::copy_n(source + part, s.channels, &buffers.key[position * buffers.width]);
    std::copy_n(source + 2 * part, s.channels, &buffers.value[position * buffers.width]);
    if (padding) continue;
    real* query = &buffers.query[buffers.queries++ * buffers.width];
    for (int64_t c = 0; c < s.channels; ++c) query[c] = input.scale * source[c];
  }
}

// One row of logits to attention: adds the bias and the mask (or null), and takes the softmax.
static void softmax_row(real* row, const real* bias, const real* mask, int64_t columns) {
  vector largest = load(row) + load(bias);
  if (mask) largest += load(mask);
  for (int64_t j = 0; j < columns; j += kLanes) {
    vector logits = load(row + j) + load(bias + j);
    if (mask) logits += load(mask + j);
    store(row + j, logits);
    largest = logits > largest ? logits : largest;
  }
  real lanes[kLanes];
  store(lanes, largest);
  real most = lanes[0];
  for (int64_t i = 1; i < kLanes; ++i) most = lanes[i] > most ? lanes[i] : most;
  vector sums = {};
  for (int64_t j = 0; j < columns; j += kLanes) {
    const vector weights = exponential(load(row + j) - most);
    store(row + j, weights);
    sums += weights;
  }
  const real factor = 1 / sum_lanes(sums);
  for (int64_t j = 0; j < columns; j += kLanes) store(row + j, load(row + j) * factor);
}

// Gathers a head of a window and computes the attention of its queries.
static void attend(const WindowSizes& s, const WindowInput<real>& input, int64_t window,
                   int64_t head, HeadBuffers& buffers) {
  gather(s, input, window, head, buffers);
  transpose(s, buffers.key, buffers.width, buffers.key_transposed);
  multiply({buffers.query.data(), buffers.width, 1}, buffers.key_transposed.data(),
           buffers.attention.data(), buffers.queries, s.channels, s.columns);
  const real* bias = input.bias + head * s.positions * s.columns;
  const real* mask =
      input.mask ? input.mask + input.kinds[window] * s.positions * s.columns : nullptr;
  const int64_t* tokens = input.tokens + window * s.positions;
  for (int64_t position = 0, query = 0; position < s.positions; ++position) {
    if (tokens[position] < 0) continue;
    softmax_row(&buffers.attention[query++ * s.columns], bias + position * s.columns,
                mask ? mask + position * s.columns : nullptr, s.columns);
  }
}

// ---- forward ----

static void window_attention_forward(const WindowSizes& s, const WindowInput<real>& input,
                                     real* output, int64_t begin, int64_t end) {
  HeadBuffers buffers(s, false);
  for (int64_t pair = begin; pair < end; ++pair) {
    const int64_t window = pair / s.heads, head = pair % s.heads;
    attend(s, input, window, head, buffers);
    // The queries are not needed any more: their place is for the output.
    std::vector<real>& rows = buffers.query;
    multiply({buffers.attention.data(), s.columns, 1}, buffers.value.data(), rows.data(),
             buffers.queries, s.positions, buffers.width);
    const int64_t* tokens = input.tokens + window * s.positions;
    for (int64_t position = 0, query = 0; position < s.positions; ++position) {
      if (tokens[position] < 0) continue;
      std::copy_n(&rows[query++ * buffers.width], s.channels,
                  output + (tokens[position] * s.heads + head) * s.channels);
    }
  }
}

// ---- backward ----

// In place, from the gradient of the attention to that of the logits.
static void softmax_backward_row(real* gradient, const real* attention, int64_t columns) {
  vector sums = {};
  for (int64_t j = 0; j < columns; j += kLanes) sums += load(gradient + j) * load(attention + j);
  const real weighted = sum_lanes(sums);
  for (int64_t j = 0; j < columns; j += kLanes) {
    store(gradient + j, load(attention + j) * (load(gradient + j) - weighted));
  }
}

// Writes the gradients of a head of a window to their tokens, or adds them to the padding's.
static void scatter_gradients(const WindowSizes& s, const WindowInput<real>& input, int64_t window,
                              int64_t head, const HeadBuffers& buffers, real* grad_qkv,
                              real* grad_padding) {
  const int64_t part = s.heads * s.channels, width = buffers.width;
  const int64_t* tokens = input.tokens + window * s.positions;
  for (int64_t position = 0, query = 0; position < s.positions; ++position) {
    const real* key = &buffers.grad_key[position * width];
    const real* value = &buffers.grad_value[position * width];
    if (tokens[position] < 0) {
      for (int64_t c = 0; c < s.channels; ++c) {
        grad_padding[s.channels + c] += key[c], grad_padding[2 * s.channels + c] += value[c];
      }
      continue;
    }
    real* to = grad_qkv + tokens[position] * 3 * part + head * s.channels;
    const real* of_query = &buffers.grad_query[query++ * width];
    for (int64_t c = 0; c < s.channels; ++c) to[c] = input.scale * of_query[c];
    std::copy_n(key, s.channels, to + part);
    std::copy_n(value, s.channels, to + 2 * part);
  }
}

static void window_attention_backward(const WindowSizes& s, const WindowInput<real>& input,
                                      const real* grad_output,
                                      const WindowGradients<real>& gradients, int64_t begin,
                                      int64_t end) {
  HeadBuffers b(s, true);
  const int64_t width = b.width;
  for (int64_t pair = begin; pair < end; ++pair) {
    const int64_t chunk = pair / s.heads, head = pair % s.heads;
    const int64_t last = std::min(s.windows, (chunk + 1) * s.windows_per_chunk);
    real* grad_bias = gradients.bias + pair * s.positions * s.columns;
    real* grad_padding = gradients.padding + pair * 3 * s.channels;
    for (int64_t window = chunk * s.windows_per_chunk; window < last; ++window) {
      attend(s, input, window, head, b);
      transpose(s, b.value, width, b.value_transposed);
      const int64_t* tokens = input.tokens + window * s.positions;
      for (int64_t position = 0, query = 0; position < s.positions; ++position) {
        if (tokens[position] < 0) continue;
        std::copy_n(grad_output + (tokens[position] * s.heads + head) * s.channels, s.channels,
                    &b.gradient[query++ * width]);
      }
      multiply({b.gradient.data(), width, 1}, b.value_transposed.data(), b.grad_attention.data(),
               b.queries, s.channels, s.columns);
      for (int64_t position = 0, query = 0; position < s.positions; ++position) {
        if (tokens[position] < 0) continue;
        real* row = &b.grad_attention[query * s.columns];
        softmax_backward_row(row, &b.attention[query++ * s.columns], s.columns);
        real* sum = grad_bias + position * s.columns;
        for (int64_t j = 0; j < s.columns; j += kLanes)
          store(sum + j, load(sum + j) + load(row + j));
      }
      multiply({b.grad_attention.data(), s.columns, 1}, b.key.data(), b.grad_query.data(),
               b.queries, s.positions, width);
      // Transposed on the left: over queries, for each position.
      multiply({b.grad_attention.data(), 1, s.columns}, b.query.data(), b.grad_key.data(),
               s.positions, b.queries, width);
      multiply({b.attention.data(), 1, s.columns}, b.gradient.data(), b.grad_value.data(),
               s.positions, b.queries, width);
      scatter_gradients(s, input, window, head, b, gradients.qkv, grad_padding);
    }
  }
}

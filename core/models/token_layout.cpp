#include "core/base/error.h"
#include "core/models/branch.h"

#include <torch/types.h>

#include <algorithm>

namespace resect {

namespace {

void requireShape(const torch::Tensor& tensor, const torch::Tensor& ids, const char* what) {
    if (tensor.sizes() != ids.sizes()) {
        throw Error(ErrorCode::BadInput, what, "has another shape than the token ids");
    }
}

[[noreturn]] void refuseRow(std::int64_t row, const char* what) {
    throw Error(ErrorCode::BadInput, "batch row " + std::to_string(row), std::string(what) + " do not stand side by side");
}

}  // namespace

TokenBatch TokenBatch::to(torch::Device device) const {
    const auto move = [&](const torch::Tensor& tensor) { return tensor.defined() ? tensor.to(device) : tensor; };
    return {move(ids_BT), move(mask_BT), move(documents_BT), move(pixels_BCHW)};
}

TokenLayout::TokenLayout(const TokenBatch& batch, torch::Device device, std::int64_t offset, const std::vector<std::int64_t>& padding) {
    if (!batch.ids_BT.defined() || batch.ids_BT.dim() != 2 || batch.ids_BT.scalar_type() != torch::kInt64 || batch.ids_BT.numel() == 0) {
        throw Error(ErrorCode::BadInput, "token ids", "expected int64 [rows, tokens] with at least one token");
    }
    m_tokens = batch.ids_BT.size(1);
    m_span.offset = offset;
    m_length = offset + m_tokens;
    m_padding = padding;
    const bool masked = batch.mask_BT.defined() && !batch.mask_BT.all().item<bool>();
    m_documents = batch.documents_BT.defined();
    if (masked) {
        m_real_BT = batch.mask_BT.to(device, torch::kBool);
    }
    if (masked || batch.documents_BT.defined() || !padding.empty()) {
        TokenBatch checked{batch.ids_BT, masked ? batch.mask_BT : torch::Tensor(), batch.documents_BT, {}};
        layOut(checked, device, padding);
    }
}

void TokenLayout::layOut(const TokenBatch& batch, torch::Device device, const std::vector<std::int64_t>& padding) {
    const std::int64_t rows = batch.ids_BT.size(0), offset = m_span.offset;
    torch::Tensor mask, documents;
    if (batch.mask_BT.defined()) {
        requireShape(batch.mask_BT, batch.ids_BT, "attention mask");
        mask = batch.mask_BT.to(torch::kCPU, torch::kBool).contiguous();
    }
    if (batch.documents_BT.defined()) {
        requireShape(batch.documents_BT, batch.ids_BT, "document numbers");
        documents = batch.documents_BT.to(torch::kCPU, torch::kInt64).contiguous();
    }
    if (offset > 0 && (mask.defined() || documents.defined())) {
        throw Error(ErrorCode::Unsupported, "batch", "padding and packed documents are taken with the first tokens of a cache only");
    }
    auto first = torch::zeros({rows, m_tokens}, torch::kInt32);
    auto positions = torch::zeros({rows, m_tokens}, torch::kInt64);
    std::vector<std::int64_t> leftPadding(static_cast<std::size_t>(rows), 0);
    m_cacheable = !documents.defined();
    for (std::int64_t row = 0; row < rows; ++row) {
        const bool* real = mask.defined() ? mask.data_ptr<bool>() + row * m_tokens : nullptr;
        const std::int64_t* document = documents.defined() ? documents.data_ptr<std::int64_t>() + row * m_tokens : nullptr;
        std::int32_t* firstKey = first.data_ptr<std::int32_t>() + row * m_tokens;
        std::int64_t* position = positions.data_ptr<std::int64_t>() + row * m_tokens;
        std::int64_t start = padding.empty() ? 0 : padding[static_cast<std::size_t>(row)];  // of the document that token t is in
        bool seenReal = false;
        for (std::int64_t t = 0; t < m_tokens; ++t) {
            if (real && !real[t]) {  // padding sees itself only, so that its values stay finite
                firstKey[t] = static_cast<std::int32_t>(offset + t);
                m_cacheable = m_cacheable && !seenReal;
                continue;
            }
            const bool afterPadding = real && t > 0 && !real[t - 1];
            if (afterPadding && seenReal) {
                refuseRow(row, "the real tokens");
            }
            if (afterPadding || (document && t > 0 && document[t] != document[t - 1])) {
                if (document && std::find(document, document + t, document[t]) != document + t && !afterPadding) {
                    refuseRow(row, "the tokens of a document");
                }
                start = offset + t;
                leftPadding[static_cast<std::size_t>(row)] = afterPadding ? t : leftPadding[static_cast<std::size_t>(row)];
            }
            seenReal = true;
            firstKey[t] = static_cast<std::int32_t>(start);
            position[t] = offset + t - start;
        }
    }
    m_span.first_BT = first.to(device);
    m_positions_BT = positions.to(device);
    if (padding.empty()) {
        m_padding = std::move(leftPadding);
    }
    m_length = positions.max().item<std::int64_t>() + 1;
}

TokenLayout TokenLayout::ofRows(const torch::Tensor& rows_R) const {
    TokenLayout own = *this;
    const auto choose = [&](torch::Tensor& perRow) {
        if (perRow.defined()) {
            perRow = perRow.index_select(0, rows_R);
        }
    };
    choose(own.m_span.first_BT);
    choose(own.m_positions_BT);
    choose(own.m_real_BT);
    return own;
}

TokenLayout TokenLayout::ofTokens(const torch::Tensor& index_BK, const torch::Tensor& there_BK, std::int64_t cached) const {
    TokenLayout own;
    own.m_tokens = index_BK.size(1);
    own.m_length = m_length;
    own.m_positions_BT = positions(index_BK.device()).expand({index_BK.size(0), -1}).gather(1, index_BK);
    own.m_real_BT = there_BK;
    own.m_cacheable = false;
    own.m_span.offset = cached;
    const auto self_K = torch::arange(cached, cached + index_BK.size(1), index_BK.options().dtype(torch::kInt32));
    own.m_span.first_BT = self_K.expand_as(index_BK).masked_fill(there_BK, 0);
    return own;
}

std::vector<std::int64_t> TokenLayout::leftPadding() const {
    if (!m_cacheable) {
        throw Error(ErrorCode::Unsupported, "batch", "a cache needs one document per row, padded on the left if at all");
    }
    return m_padding;
}

RotaryTable::Rows TokenLayout::rotary(RotaryTable& table) const {
    return m_positions_BT.defined() ? table.at(m_positions_BT, m_length) : table.range(m_span.offset, m_tokens);
}

torch::Tensor TokenLayout::positions(torch::Device device) const {
    if (m_positions_BT.defined()) {
        return m_positions_BT;
    }
    return torch::arange(m_span.offset, m_span.offset + m_tokens, torch::TensorOptions(torch::kInt64).device(device)).unsqueeze(0);
}

void RunContext::tap(TapPoint point, const torch::Tensor& value) const {
    if (wants(point)) {
        observer->observe(point, block, value);
    }
}

}  // namespace resect

#include "core/data/sentencepiece_model.h"

#include <sentencepiece_processor.h>

namespace resect {
namespace {

class Model final : public SentencePieceModel {
public:
    std::string load(const std::string& bytes) { return textOf(m_processor.LoadFromSerializedProto(bytes)); }
    int pieceSize() const override { return m_processor.GetPieceSize(); }
    bool isControl(int id) const override { return m_processor.IsControl(id); }
    bool isUnknown(int id) const override { return m_processor.IsUnknown(id); }
    std::string piece(int id) const override { return m_processor.IdToPiece(id); }
    int idOf(std::string_view piece) const override { return m_processor.PieceToId({piece.data(), piece.size()}); }
    int bosId() const override { return m_processor.bos_id(); }
    int eosId() const override { return m_processor.eos_id(); }
    std::string encode(std::string_view text, std::vector<int>& ids) const override { return textOf(m_processor.Encode({text.data(), text.size()}, &ids)); }
    std::string encode(std::string_view text, std::vector<std::string>& pieces) const override {
        return textOf(m_processor.Encode({text.data(), text.size()}, &pieces));
    }

private:
    static std::string textOf(const sentencepiece::util::Status& status) {
        if (status.ok()) return {};
        const std::string message = status.message();
        return message.empty() ? "unknown reason" : message;
    }
    sentencepiece::SentencePieceProcessor m_processor;
};

}  // namespace
}  // namespace resect

extern "C" resect::SentencePieceModel* resectLoadSentencePiece(const std::string& bytes, std::string& error) {
    auto model = std::make_unique<resect::Model>();
    error = model->load(bytes);
    return error.empty() ? model.release() : nullptr;
}

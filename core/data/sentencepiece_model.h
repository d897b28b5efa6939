#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// A SentencePiece model, read by libsentencepiece.
///
/// That library carries an old protobuf with its ordinary names, and LibTorch needs a newer one: in one process each would call into the other and
/// crash before main(). So it is linked by a module of its own, which is loaded apart from everything else when a tokenizer.model is first read.
class SentencePieceModel {
public:
    /// `bytes`: the content of a tokenizer.model. Throws BadInput naming `subject`, Internal when the module is not beside the program's libraries.
    static std::unique_ptr<SentencePieceModel> load(const std::string& bytes, const std::string& subject);
    virtual ~SentencePieceModel() = default;
    virtual int pieceSize() const = 0;
    virtual bool isControl(int id) const = 0;
    virtual bool isUnknown(int id) const = 0;
    virtual std::string piece(int id) const = 0;
    virtual int idOf(std::string_view piece) const = 0;
    virtual int bosId() const = 0;   ///< -1 = none
    virtual int eosId() const = 0;
    /// Empty on success, otherwise what went wrong.
    virtual std::string encode(std::string_view text, std::vector<int>& ids) const = 0;
    virtual std::string encode(std::string_view text, std::vector<std::string>& pieces) const = 0;
};

/// What the module exports as `resectLoadSentencePiece`: null and `error` set when the bytes are no model.
using LoadSentencePiece = SentencePieceModel*(const std::string& bytes, std::string& error);

}  // namespace resect

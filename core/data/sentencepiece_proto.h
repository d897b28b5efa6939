#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// What a tokenizer.model holds, as far as other formats need it. The file is a protobuf message (sentencepiece_model.proto); libsentencepiece gives no
/// access to scores and kinds of all pieces.
struct SentencePieceProto {
    enum Kind { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };  ///< as in the file, and as in GGUF
    struct Piece {
        std::string text;
        float score = 0;
        int kind = Normal;
    };
    std::vector<Piece> pieces;
    enum ModelType { Unigram = 1, Bpe = 2, Word = 3, Char = 4 };
    int modelType = Unigram;
    int unkId = 0, bosId = 1, eosId = 2, padId = -1;
    bool addDummyPrefix = true, removeExtraSpaces = true;
    bool normalizes = false;  ///< it rewrites characters before it cuts (NFKC and the like)

    /// Throws BadInput naming `subject` for bytes that are no such message.
    static SentencePieceProto parse(std::string_view bytes, const std::string& subject);
    /// A file that libsentencepiece reads.
    std::string serialized() const;
};

}  // namespace resect

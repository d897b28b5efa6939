#include "core/data/sentencepiece_proto.h"

#include "core/base/error.h"

#include <cstdint>
#include <cstring>

namespace resect {

namespace {

/// Fields of a protobuf message, one after the other.
class Fields {
public:
    Fields(std::string_view bytes, const std::string& subject) : m_bytes(bytes), m_subject(subject) {}

    struct Field {
        int number = 0;
        std::uint64_t value = 0;  ///< of a varint or fixed field
        std::string_view bytes;   ///< of a length-delimited one
    };
    bool next(Field& field) {
        if (m_at == m_bytes.size()) return false;
        const std::uint64_t key = varint();
        field = {static_cast<int>(key >> 3), 0, {}};
        switch (key & 7) {
        case 0: field.value = varint(); break;
        case 1: field.value = fixed(8); break;
        case 2: field.bytes = take(varint()); break;
        case 5: field.value = fixed(4); break;
        default: throw bad();
        }
        return true;
    }

private:
    Error bad() const { return Error(ErrorCode::BadInput, m_subject, "expected a SentencePiece model, found bytes that are not a protobuf message"); }
    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (m_at >= m_bytes.size()) throw bad();
            const auto byte = static_cast<unsigned char>(m_bytes[m_at++]);
            value |= std::uint64_t{byte & 0x7fu} << shift;
            if (byte < 0x80) return value;
        }
        throw bad();
    }
    std::string_view take(std::uint64_t count) {
        if (count > m_bytes.size() - m_at) throw bad();
        const auto part = m_bytes.substr(m_at, count);
        m_at += count;
        return part;
    }
    std::uint64_t fixed(std::size_t count) {
        std::uint64_t value = 0;
        std::memcpy(&value, take(count).data(), count);
        return value;
    }

    std::string_view m_bytes;
    const std::string& m_subject;
    std::size_t m_at = 0;
};

float floatOf(std::uint64_t bits) {
    const auto low = static_cast<std::uint32_t>(bits);
    float value;
    std::memcpy(&value, &low, sizeof value);
    return value;
}

SentencePieceProto::Piece parsePiece(std::string_view bytes, const std::string& subject) {
    SentencePieceProto::Piece piece;
    Fields fields(bytes, subject);
    for (Fields::Field field; fields.next(field);) {
        if (field.number == 1) piece.text = field.bytes;
        if (field.number == 2) piece.score = floatOf(field.value);
        if (field.number == 3) piece.kind = static_cast<int>(field.value);
    }
    return piece;
}

class Message {
public:
    void number(int field, std::int64_t value) {
        varint(static_cast<std::uint64_t>(field) << 3);
        varint(static_cast<std::uint64_t>(value));
    }
    void real(int field, float value) {
        varint(static_cast<std::uint64_t>(field) << 3 | 5);
        char raw[4];
        std::memcpy(raw, &value, 4);
        m_bytes.append(raw, 4);
    }
    void text(int field, std::string_view value) {
        varint(static_cast<std::uint64_t>(field) << 3 | 2);
        varint(value.size());
        m_bytes.append(value);
    }
    const std::string& bytes() const noexcept { return m_bytes; }

private:
    void varint(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7) m_bytes += static_cast<char>((value & 0x7f) | 0x80);
        m_bytes += static_cast<char>(value);
    }
    std::string m_bytes;
};

}  // namespace

SentencePieceProto SentencePieceProto::parse(std::string_view bytes, const std::string& subject) {
    SentencePieceProto model;
    Fields fields(bytes, subject);
    for (Fields::Field field; fields.next(field);) {
        if (field.number == 1) model.pieces.push_back(parsePiece(field.bytes, subject));
        if (field.number == 2) {
            Fields trainer(field.bytes, subject);
            for (Fields::Field entry; trainer.next(entry);) {
                const int value = static_cast<int>(static_cast<std::int64_t>(entry.value));
                if (entry.number == 3) model.modelType = value;
                if (entry.number == 40) model.unkId = value;
                if (entry.number == 41) model.bosId = value;
                if (entry.number == 42) model.eosId = value;
                if (entry.number == 43) model.padId = value;
            }
        }
        if (field.number == 3) {
            Fields normalizer(field.bytes, subject);
            for (Fields::Field entry; normalizer.next(entry);) {
                if (entry.number == 2) model.normalizes = !entry.bytes.empty();
                if (entry.number == 3) model.addDummyPrefix = entry.value != 0;
                if (entry.number == 4) model.removeExtraSpaces = entry.value != 0;
            }
        }
    }
    if (model.pieces.empty()) throw Error(ErrorCode::BadInput, subject, "is no SentencePiece model: it holds no pieces");
    return model;
}

std::string SentencePieceProto::serialized() const {
    Message model;
    bool byteFallback = false;
    for (const Piece& piece : pieces) {
        Message part;
        part.text(1, piece.text);
        part.real(2, piece.score);
        part.number(3, piece.kind);
        model.text(1, part.bytes());
        byteFallback = byteFallback || piece.kind == Byte;
    }
    Message trainer;
    trainer.number(3, modelType);
    trainer.number(4, static_cast<std::int64_t>(pieces.size()));
    trainer.number(35, byteFallback);
    trainer.number(40, unkId);
    trainer.number(41, bosId);
    trainer.number(42, eosId);
    trainer.number(43, padId);
    const auto nameOf = [&](int field, int id) {
        if (id >= 0 && static_cast<std::size_t>(id) < pieces.size()) trainer.text(field, pieces[static_cast<std::size_t>(id)].text);
    };
    nameOf(45, unkId);
    nameOf(46, bosId);
    nameOf(47, eosId);
    nameOf(48, padId);
    model.text(2, trainer.bytes());
    Message normalizer;
    normalizer.text(1, "identity");
    normalizer.number(3, addDummyPrefix);
    normalizer.number(4, removeExtraSpaces);
    normalizer.number(5, true);
    model.text(3, normalizer.bytes());
    return model.bytes();
}

}  // namespace resect

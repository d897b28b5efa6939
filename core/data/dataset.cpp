#include "core/data/dataset.h"

#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/checkpoint/sha256.h"
#include "core/data/example.h"
#include "core/data/row_builder.h"
#include "core/data/unicode.h"

#include <algorithm>
#include <fstream>

namespace resect {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kTextBytesPerByte = 40;  // tokenising a text needs the text twice, its symbols and its ids
constexpr std::uint64_t kJsonBytesPerByte = 10;  // a parsed document beside its text
constexpr std::size_t kMaxLine = 256u << 20;

std::string fingerprintOf(const std::vector<TokenRow>& rows) {
    Sha256 hash;
    const auto add = [&](const std::vector<std::int64_t>& values) {
        const auto size = static_cast<std::int64_t>(values.size());
        hash.add(std::as_bytes(std::span(&size, 1)));
        hash.add(std::as_bytes(std::span(values)));
    };
    for (const TokenRow& row : rows) {
        add(row.ids);
        add(row.targets);
        add(row.documents);
    }
    return "sha256:" + hash.hex();
}

std::string describe(const fs::path& file, const Dataset& data, const DataOptions& options) {
    const bool even = std::all_of(data.rows.begin(), data.rows.end(),
                                  [&](const TokenRow& row) { return static_cast<int>(row.ids.size()) == options.rowLength; });
    return file.filename().string() + ": " + formatThousands(static_cast<std::int64_t>(data.rows.size())) +
           (data.rows.size() == 1 ? " row of " : " rows of ") + (even ? "" : "at most ") + formatThousands(options.rowLength) +
           " tokens, " + formatThousands(data.tokens) + " tokens";
}

std::ifstream openFile(const fs::path& file) {
    if (!fs::exists(file)) throw Error(ErrorCode::NotFound, file.string(), "does not exist");
    if (!fs::is_regular_file(file)) throw Error(ErrorCode::BadInput, file.string(), "is no file");
    std::ifstream in(file, std::ios::binary);
    if (!in) throw Error(ErrorCode::NoPermission, file.string(), "cannot be read");
    if (fs::file_size(file) == 0) throw Error(ErrorCode::BadInput, file.string(), "is empty");
    return in;
}

[[noreturn]] void tooLarge(const fs::path& file, std::uint64_t needed, std::uint64_t allowed) {
    throw Error(ErrorCode::OutOfMemory, file.string(),
                "tokenising it needs about " + formatBytes(needed) + " of memory, " + formatBytes(allowed) +
                    " are allowed; read less of it (maxRows, maxBytes) or allow more");
}

/// Reads and lays out one file.
class Loader {
public:
    Loader(const fs::path& file, const Tokenizer* tokenizer, std::int64_t vocabSize, const DataOptions& options,
           const JobContext& job)
        : m_file(file), m_tokenizer(tokenizer), m_vocabSize(vocabSize), m_options(options), m_job(job),
          m_builder(options, chunkBos(tokenizer)) {}

    void readText() {
        settleLayout(RowLayout::Chunks);
        if (!m_tokenizer)
            throw Error(ErrorCode::NotFound, m_file.string(),
                        "is text, but the checkpoint has no tokenizer; give rows with input_ids");
        std::ifstream in = openFile(m_file);
        const std::uint64_t size = fs::file_size(m_file);
        const std::uint64_t all = m_options.maxBytes ? std::min(size, m_options.maxBytes) : size;
        // With a limit on rows, a beginning of the file is tried first; sixteen bytes per token is far more than text needs.
        std::uint64_t bytes = all;
        if (m_options.maxRows > 0)
            bytes = std::min(
                all,
                static_cast<std::uint64_t>(m_options.maxRows) * static_cast<std::uint64_t>(m_options.rowLength) * 16 + 65536);
        for (;; bytes = std::min(all, bytes * 4)) {
            if (bytes * kTextBytesPerByte > m_options.maxMemory)
                tooLarge(m_file, bytes * kTextBytesPerByte, m_options.maxMemory);
            m_builder = RowBuilder(m_options, chunkBos(m_tokenizer));
            in.clear();
            in.seekg(0);
            std::string text(bytes, '\0');
            in.read(text.data(), static_cast<std::streamsize>(bytes));
            text.resize(static_cast<std::size_t>(in.gcount()));
            if (bytes < size) text.resize(wholeCharacters(text));
            requireUtf8(text, 0);
            if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);  // the byte order mark of some editors is no text
            addText(text);
            if (bytes == all || m_builder.full()) return;
        }
    }

    void readLines() {
        std::ifstream in = openFile(m_file);
        const auto size = static_cast<double>(fs::file_size(m_file));
        std::string line;
        std::uint64_t offset = 0;
        for (std::int64_t number = 1; !m_builder.full() && nextLine(in, line); ++number) {
            const std::uint64_t begin = offset;
            offset += line.size() + 1;
            if (m_options.maxBytes && offset > m_options.maxBytes && begin > 0) break;
            checkpoint(static_cast<double>(offset), size);
            requireUtf8(line, begin);
            if (line.find_first_not_of(" \t\r") == line.npos) continue;
            const std::string where = "line " + std::to_string(number);
            try {
                addRow(parseJson(line, m_file.string() + ": " + where), where);
            } catch (const Error& error) {
                if (error.code() != ErrorCode::BadInput || m_fatal) throw;
                m_report.rejected(where, "is not JSON: " + error.message());
            }
        }
    }

    void readArray() {
        std::ifstream in = openFile(m_file);
        const std::uint64_t size = fs::file_size(m_file);
        if (size * kJsonBytesPerByte > m_options.maxMemory) tooLarge(m_file, size * kJsonBytesPerByte, m_options.maxMemory);
        std::string text(size, '\0');
        in.read(text.data(), static_cast<std::streamsize>(size));
        text.resize(static_cast<std::size_t>(in.gcount()));
        requireUtf8(text, 0);
        const Json json = parseJson(text, m_file.string());
        if (!json.is_array())
            throw Error(ErrorCode::BadInput, m_file.string(),
                        "expected an array of objects (or one object per line in a .jsonl file)");
        std::size_t index = 0;
        for (const Json& row : json) {
            if (m_builder.full()) break;
            checkpoint(static_cast<double>(index), static_cast<double>(json.size()), "rows");
            addRow(row, "row " + std::to_string(++index));
        }
    }

    Dataset finish() {
        Dataset data;
        data.rows = m_builder.finish();
        data.layout = m_options.layout;
        data.problems = m_report.problems(m_file.filename().string());
        data.formats = m_report.formats();
        data.rejectedRows = m_report.rejectedRows();
        data.chatRendering = m_chatRendering;
        data.tokensInText = m_builder.tokensSeen() - m_notText;
        if (m_builder.cutExamples() > 0) {
            data.problems.push_back({Severity::Warning, m_file.filename().string(),
                                     formatThousands(m_builder.cutExamples()) + " examples were cut to " +
                                         formatThousands(m_options.rowLength) + " tokens",
                                     "Use longer rows."});
        }
        if (data.rows.empty()) throw Error(ErrorCode::BadInput, m_file.string(), whyNothing(data));
        for (const TokenRow& row : data.rows) {
            data.tokens += static_cast<std::int64_t>(row.ids.size());
            data.targets += static_cast<std::int64_t>(row.targets.size()) -
                            std::count(row.targets.begin(), row.targets.end(), kIgnoredTarget);
        }
        data.fingerprint = fingerprintOf(data.rows);
        data.description = describe(m_file, data, m_options);
        if (const std::string rows = m_report.summary(); !rows.empty()) data.description += "; " + rows;
        if (!m_chatRendering.empty()) data.description += "; messages " + m_chatRendering;
        return data;
    }

private:
    /// BOS where the tokenizer puts it in front of text.
    static std::optional<std::int64_t> chunkBos(const Tokenizer* tokenizer) {
        if (!tokenizer || !tokenizer->bosId()) return std::nullopt;
        const auto around = tokenizer->encode("");
        return !around.empty() && around.front() == *tokenizer->bosId() ? tokenizer->bosId() : std::nullopt;
    }

    void checkpoint(double done, double total, const char* unit = "bytes") {
        if (m_job.stopped()) throw Error(ErrorCode::Stopped, m_file.string(), "reading was stopped");
        if (++m_sinceProgress % 256 == 0) m_job.progress({done, total, unit, "tokenising"});
        const std::uint64_t used = m_builder.memory();
        if (used <= m_options.maxMemory) return;
        const auto whole = static_cast<std::uint64_t>(static_cast<double>(used) * total / std::max(done, 1.0));
        tooLarge(m_file, std::max(used, whole), m_options.maxMemory);
    }

    void requireUtf8(std::string_view text, std::uint64_t offset) {
        const auto bad = findInvalidUtf8(text);
        if (!bad) return;
        m_fatal = true;
        throw Error(ErrorCode::BadInput, m_file.string(), "is not UTF-8 at byte " + std::to_string(offset + *bad));
    }

    /// Reads up to the next line feed; a file without any is refused before it fills the memory.
    bool nextLine(std::ifstream& in, std::string& line) const {
        const std::uint64_t longest = std::min<std::uint64_t>(kMaxLine, m_options.maxMemory / kJsonBytesPerByte);
        std::streambuf& buffer = *in.rdbuf();
        line.clear();
        for (int c = buffer.sbumpc(); c != std::char_traits<char>::eof(); c = buffer.sbumpc()) {
            if (c == '\n') return true;
            if (line.size() >= longest) tooLarge(m_file, kJsonBytesPerByte * line.size(), m_options.maxMemory);
            line.push_back(static_cast<char>(c));
        }
        return !line.empty();
    }

    void addText(const std::string& text) {
        static constexpr std::string_view kSeparator = "<|endoftext|>";
        if (m_options.layout == RowLayout::Chunks) {
            addDocument(text, false);
            return;
        }
        std::string document;
        for (std::size_t from = 0; from < text.size() && !m_builder.full();) {
            const std::size_t end = std::min(text.find('\n', from), text.size());
            const std::string_view line(text.data() + from, end - from);
            if (line == kSeparator || line == std::string(kSeparator) + "\r") {
                if (!document.empty()) addDocument(document, true);
                document.clear();
            } else {
                document.append(text, from, end + 1 - from);
            }
            from = end + 1;
        }
        if (!document.empty()) addDocument(document, true);
    }

    void addDocument(const std::string& text, bool withEos) {
        checkpoint(0, 0);
        Example example;
        if (withEos) {
            example.parts = {{text, true}};
            tokenizeExample(example, m_tokenizer, false);
        } else {
            example.ids = m_tokenizer->encode(text);
            example.loss.assign(example.ids.size(), true);
            m_notText = static_cast<std::int64_t>(m_tokenizer->encode("").size());
        }
        checkIds(example.ids, "text");
        m_builder.add(example);
    }

    void addRow(const Json& row, const std::string& where) {
        Example example;
        try {
            example = readExample(row, holdsMessages(row) ? chatTemplate() : nullptr);
            tokenizeExample(example, m_tokenizer, m_options.answersOnly);
        } catch (const Error& error) {
            if (error.code() != ErrorCode::BadInput || m_fatal) throw;
            m_report.rejected(where, error.message());
            return;
        }
        checkIds(example.ids, where);
        settleLayout(example.instruction ? RowLayout::Packed : RowLayout::Chunks);
        if (const auto reason = m_builder.add(example))
            m_report.rejected(where, *reason);
        else
            m_report.taken(example.format);
    }

    void settleLayout(RowLayout layout) {
        if (m_options.layout != RowLayout::Auto) return;
        m_options.layout = layout;
        m_builder = RowBuilder(m_options, chunkBos(m_tokenizer));
    }

    /// Null when the checkpoint has none.
    const ChatTemplate* chatTemplate() {
        if (!m_chatRendering.empty()) return m_chat.get();
        m_fatal = true;  // a broken template concerns every row
        if (!m_options.chatTemplateFolder.empty()) m_chat = ChatTemplate::find(m_options.chatTemplateFolder);
        m_fatal = false;
        m_chatRendering = m_chat ? "by the chat template of " + fs::path(m_chat->subject()).filename().string()
                                 : "as 'role: content', because the checkpoint has no chat template";
        return m_chat.get();
    }

    void checkIds(const std::vector<std::int64_t>& ids, const std::string& where) {
        for (const std::int64_t id : ids) {
            if (id >= 0 && id < m_vocabSize) continue;
            m_fatal = true;
            throw Error(ErrorCode::BadInput, m_file.string() + ": " + where,
                        "token id " + std::to_string(id) + " is outside the model's vocabulary of " +
                            formatThousands(m_vocabSize) + " tokens");
        }
    }

    std::string whyNothing(const Dataset& data) const {
        if (m_options.layout == RowLayout::Chunks && data.tokensInText > 0) {
            return "holds " + formatThousands(data.tokensInText) + " tokens, fewer than one row of " +
                   formatThousands(m_options.rowLength);
        }
        if (data.problems.empty()) return "holds no usable row; expected objects with " + expectedFormats();
        const std::string& first = data.problems.front().message;
        const std::string expected = first.find(expectedFormats()) == first.npos ? ". Expected are " + expectedFormats() : "";
        return "holds no usable row; " + data.problems.front().subject + " " + first + expected;
    }

    const fs::path& m_file;
    const Tokenizer* m_tokenizer;
    std::int64_t m_vocabSize;
    DataOptions m_options;
    const JobContext& m_job;
    RowBuilder m_builder;
    RowReport m_report;
    std::unique_ptr<ChatTemplate> m_chat;
    std::string m_chatRendering;
    std::int64_t m_notText = 0;
    std::uint64_t m_sinceProgress = 0;
    bool m_fatal = false;  ///< the error on its way concerns the file, not one line
};

}  // namespace

Dataset loadDataset(const fs::path& file, const Tokenizer* tokenizer, std::int64_t vocabSize, const DataOptions& options,
                    const JobContext& job) {
    if (options.rowLength < 2)
        throw Error(ErrorCode::Usage, "rowLength", "a row needs at least 2 tokens, found " + std::to_string(options.rowLength));
    Loader loader(file, tokenizer, vocabSize, options, job);
    const std::string extension = file.extension().string();
    if (extension == ".txt")
        loader.readText();
    else if (extension == ".jsonl")
        loader.readLines();
    else if (extension == ".json")
        loader.readArray();
    else
        throw Error(ErrorCode::Unsupported, file.string(),
                    "the extension '" + extension + "' is not understood; expected .txt, .jsonl or .json");
    return loader.finish();
}

}  // namespace resect

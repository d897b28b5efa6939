#include "core/data/image_set.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/mapped_file.h"
#include "core/base/numbers.h"
#include "core/checkpoint/sha256.h"
#include "core/data/class_labels.h"
#include "core/data/idx_file.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

namespace resect {

namespace fs = std::filesystem;

/// A picture before it is prepared.
struct SourceImage {
    fs::path file;                        // empty: of the IDX file
    std::int64_t label = kIgnoredTarget;
    std::string folder{};                 // its class folder, for the order
};

struct ImageSet::Data {
    ImagePreparation preparation;
    std::vector<std::array<float, 256>> table;
    fs::path root;                        // names are relative to it
    std::vector<SourceImage> images;
    IdxFile idx;                          // when the pictures come from one
    std::vector<std::uint8_t> kept;       // prepared pictures one after another; empty = prepared when asked for
    std::size_t bytesEach = 0;

    std::string nameOf(std::size_t index) const {
        const fs::path& file = images[index].file;
        if (file.empty()) return "image " + toText(static_cast<std::int64_t>(index)) + " of " + root.filename().string();
        const fs::path relative = file.lexically_relative(root);
        return relative.empty() || relative == "." ? file.filename().string() : relative.string();
    }
    Image decoded(std::size_t index) const {
        const SourceImage& source = images[index];
        if (!source.file.empty()) return readImage(source.file);
        const auto size = static_cast<std::size_t>(idx.sizes[1] * idx.sizes[2]);
        const auto* first = idx.values.data() + index * size;
        return {static_cast<int>(idx.sizes[1]), static_cast<int>(idx.sizes[2]), 1, {first, first + size}};
    }
    Image preparedNow(std::size_t index) const { return preparation.prepared(decoded(index), nameOf(index)); }
};

ImageSet::ImageSet(std::unique_ptr<Data> data) : m_data(std::move(data)) {}
ImageSet::~ImageSet() = default;
std::size_t ImageSet::size() const noexcept { return m_data->images.size(); }
const ImagePreparation& ImageSet::preparation() const noexcept { return m_data->preparation; }
bool ImageSet::isInMemory() const noexcept { return !m_data->kept.empty(); }
std::string ImageSet::name(std::size_t index) const { return m_data->nameOf(index); }

void ImageSet::write(std::size_t index, float* out) const {
    const Data& data = *m_data;
    Image now;
    if (data.kept.empty()) now = data.preparedNow(index);
    const std::uint8_t* samples = data.kept.empty() ? now.samples.data() : data.kept.data() + index * data.bytesEach;
    const auto channels = static_cast<std::size_t>(data.preparation.channels);
    const std::size_t pixels = data.bytesEach / channels;
    for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t i = 0; i < pixels; ++i) *out++ = data.table[c][samples[i * channels + c]];
}

namespace {

constexpr std::size_t kHeadBytes = 4096;

bool isHidden(const fs::path& path) { return path.filename().string().starts_with("."); }

bool isIdxName(const fs::path& path) {
    const std::string name = path.filename().string();
    return name.find("idx3") != name.npos && name.find("ubyte") != name.npos;
}

/// Files below a folder at all depths, in the order of their bytes.
std::vector<fs::path> filesBelow(const fs::path& folder, const JobContext& job) {
    std::vector<fs::path> files;
    for (auto it = fs::recursive_directory_iterator(folder, fs::directory_options::follow_directory_symlink); it != fs::recursive_directory_iterator(); ++it) {
        if (job.stopped()) throw Error(ErrorCode::Stopped, folder.string(), "reading was stopped");
        if (isHidden(it->path())) {
            if (it->is_directory()) it.disable_recursion_pending();
        } else if (it->is_regular_file()) {
            files.push_back(it->path());
        }
    }
    std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
    return files;
}

/// Runs `work(i)` for all i on all processors; true unless it was stopped. The error of the smallest i is thrown.
bool inParallel(std::size_t count, const std::function<void(std::size_t)>& work, const JobContext& job, const std::string& stage) {
    std::atomic<std::size_t> next = 0, done = 0;
    std::mutex mutex;
    std::size_t failedAt = count;
    std::exception_ptr failure;
    const auto attempt = [&](std::size_t i) {
        try {
            work(i);
        } catch (...) {
            const std::lock_guard lock(mutex);
            if (i < failedAt) failedAt = i, failure = std::current_exception();
            next = count;
        }
        return ++done;
    };
    {
        std::vector<std::jthread> helpers;
        const std::size_t processors = std::max(1u, std::thread::hardware_concurrency());
        for (std::size_t h = 1; h < std::min(processors, (count + 63) / 64); ++h)
            helpers.emplace_back([&] {
                for (std::size_t i = next++; i < count && !job.stopped(); i = next++) attempt(i);
            });
        for (std::size_t i = next++; i < count && !job.stopped(); i = next++)
            if (const std::size_t ready = attempt(i); ready % 64 == 0) job.progress({static_cast<double>(ready), static_cast<double>(count), "images", stage});
    }
    if (failure) std::rethrow_exception(failure);
    return !job.stopped();
}

class Loader {
public:
    Loader(const fs::path& path, const fs::path& folder, const ModelShape& shape, const ImageOptions& options, const JobContext& job)
        : m_path(path), m_folder(folder), m_shape(shape), m_options(options), m_job(job), m_labels(folder, shape) {
        m_data = std::make_unique<ImageSet::Data>();
        m_data->preparation = readImagePreparation(folder, shape, options.padToSquare);
        m_data->table = m_data->preparation.table();
        m_data->root = path;
        const ImagePreparation& to = m_data->preparation;
        m_data->bytesEach = static_cast<std::size_t>(to.channels) * static_cast<std::size_t>(to.height) * static_cast<std::size_t>(to.width);
        if (to.channels != 1 && to.channels != 3)
            throw Error(ErrorCode::Unsupported, "images", "can be made grey or RGB; the model runs " + toText(to.channels) + " channels");
    }

    Dataset load() {
        if (!fs::exists(m_path)) throw Error(ErrorCode::NotFound, m_path.string(), "does not exist");
        if (fs::is_directory(m_path)) readFolder();
        else readOneFile(m_path);
        return finish();
    }

private:
    void readOneFile(const fs::path& file) {
        const MappedFile mapped(file);
        if (looksLikeImage(mapped.bytes())) {
            m_data->root = file.parent_path();
            addFile(file, kIgnoredTarget, {});
            return;
        }
        if (!looksLikeIdx(file))
            throw Error(ErrorCode::BadInput, file.string(), "expected an image folder, an IDX file or a PNG or JPEG file for an image model; found none of them");
        readIdxFile(file);
    }

    void readIdxFile(const fs::path& file) {
        m_data->root = file;
        m_data->idx = readIdx(file, 3, m_options.maxRows, m_options.maxMemory);
        const std::int64_t all = m_data->idx.sizes[0], taken = m_options.maxRows > 0 ? std::min(m_options.maxRows, all) : all;
        m_data->images.resize(static_cast<std::size_t>(taken));
        m_found = all;
        const fs::path labelFile = idxLabelsOf(file);
        if (labelFile.empty()) {
            note(file.filename().string(), "has no labels beside it, so there are neither losses nor accuracies",
                 "Put the labels there under the same name with 'labels' for 'images' and 'idx1' for 'idx3'.");
        } else if (m_labels.count() > 0) {
            const IdxFile labels = readIdx(labelFile, 1, 0, m_options.maxMemory);
            if (labels.sizes[0] != all)
                throw Error(ErrorCode::Mismatch, labelFile.string(), "holds " + formatThousands(labels.sizes[0]) + " labels for " + formatThousands(all) + " images of " + file.filename().string());
            for (std::size_t i = 0; i < m_data->images.size(); ++i) m_data->images[i].label = m_labels.checked(labels.values[i], labelFile.string() + ": entry " + toText(static_cast<std::int64_t>(i)));
            m_labelSource = "labels from " + labelFile.filename().string();
        }
    }

    void readFolder() {
        if (fs::is_regular_file(m_path / "labels.csv")) return readListed();
        std::vector<fs::path> folders, files;
        for (const auto& entry : fs::directory_iterator(m_path)) {
            if (isHidden(entry.path())) continue;
            (entry.is_directory() ? folders : files).push_back(entry.path());
        }
        const auto byBytes = [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); };
        std::sort(folders.begin(), folders.end(), byBytes);
        std::sort(files.begin(), files.end(), byBytes);
        if (!folders.empty()) return readClasses(folders, files);
        std::vector<fs::path> idx;
        std::ranges::copy_if(files, std::back_inserter(idx), isIdxName);
        if (idx.size() == 1) return readIdxFile(idx.front());
        if (idx.size() > 1)
            throw Error(ErrorCode::BadInput, m_path.string(), "holds " + toText(static_cast<std::int64_t>(idx.size())) + " IDX files of images; name one of them: " + idx[0].filename().string() + ", " + idx[1].filename().string());
        for (const fs::path& file : files) addFile(file, kIgnoredTarget, {});
    }

    void readClasses(const std::vector<fs::path>& folders, const std::vector<fs::path>& strays) {
        for (const fs::path& stray : strays) m_report.rejected(stray.filename().string(), "stands beside the class folders, not in one of them");
        std::vector<std::string> names;
        for (const fs::path& folder : folders) names.push_back(folder.filename().string());
        std::vector<std::int64_t> labels(names.size(), kIgnoredTarget);
        if (m_labels.count() > 0) {
            std::string how;
            labels = m_labels.ofFolders(names, m_path.string(), how);
            m_labelSource = how;
            if (m_labels.guessed()) note(m_path.filename().string(), how, "Name the folders as id2label of config.json names the labels, if the order is another.");
        }
        for (std::size_t i = 0; i < folders.size(); ++i)
            for (const fs::path& file : filesBelow(folders[i], m_job)) addFile(file, labels[i], names[i]);
        interleave();
    }

    void readListed() {
        std::map<std::string, std::int64_t> listed = m_labels.readCsv(m_path / "labels.csv", m_report);
        m_labelSource = "labels from labels.csv";
        for (const fs::path& file : filesBelow(m_path, m_job)) {
            const std::string name = file.lexically_relative(m_path).string();
            if (name == "labels.csv") continue;
            const auto found = listed.find(name);
            if (found == listed.end()) {
                m_report.rejected(name, "is not listed in labels.csv");
                continue;
            }
            addFile(file, found->second, std::to_string(found->second));
            listed.erase(found);
        }
        for (const auto& [name, label] : listed) m_report.rejected(name, "is listed in labels.csv, but not there");
        interleave();
    }

    void addFile(const fs::path& file, std::int64_t label, std::string folder) { m_data->images.push_back({file, m_labels.count() > 0 ? label : kIgnoredTarget, std::move(folder)}); }

    /// The k-th of n pictures of a class comes at (k + 1/2) / n of the way.
    void interleave() {
        std::map<std::string, std::pair<double, double>> classes;  // seen, all
        for (const auto& image : m_data->images) ++classes[image.folder].second;
        std::vector<std::pair<double, std::size_t>> order;
        for (std::size_t i = 0; i < m_data->images.size(); ++i) {
            auto& [seen, all] = classes[m_data->images[i].folder];
            order.emplace_back((seen++ + 0.5) / all, i);
        }
        std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
        std::vector<SourceImage> images;
        for (const auto& [place, index] : order) images.push_back(std::move(m_data->images[index]));
        m_data->images = std::move(images);
    }

    void note(const std::string& subject, const std::string& message, const std::string& advice) { m_notes.push_back({Severity::Note, subject, message, advice}); }

    /// Drops pictures from the front on that cannot be read until enough are left, and keeps the prepared ones that fit.
    void prepareAll() {
        auto& images = m_data->images;
        if (m_found == 0) m_found = static_cast<std::int64_t>(images.size());
        const std::size_t wanted = m_options.maxRows > 0 ? std::min(images.size(), static_cast<std::size_t>(m_options.maxRows)) : images.size();
        const bool keep = wanted * m_data->bytesEach <= m_options.keepBytes;
        std::vector<SourceImage> good;
        std::vector<std::uint8_t> kept(keep ? wanted * m_data->bytesEach : 0);
        for (std::size_t first = 0; first < images.size() && good.size() < wanted;) {
            const std::size_t count = std::min(images.size() - first, wanted - good.size());
            std::vector<std::string> reasons(count);
            const auto look = [&](std::size_t i) {
                try {
                    if (keep) {
                        const Image image = m_data->preparedNow(first + i);
                        std::ranges::copy(image.samples, kept.begin() + static_cast<std::ptrdiff_t>((good.size() + i) * m_data->bytesEach));
                    } else if (!images[first + i].file.empty()) {
                        const MappedFile file(images[first + i].file);
                        imageSize(file.bytes(), images[first + i].file.string());
                    }
                } catch (const Error& error) {
                    if (error.code() != ErrorCode::BadInput && error.code() != ErrorCode::NoPermission && error.code() != ErrorCode::NotFound) throw;
                    reasons[i] = error.message();
                }
            };
            if (!inParallel(count, look, m_job, keep ? "preparing images" : "looking at images")) throw Error(ErrorCode::Stopped, m_path.string(), "reading was stopped");
            const std::size_t before = good.size();
            for (std::size_t i = 0; i < count; ++i) {
                if (!reasons[i].empty()) {
                    m_report.rejected(m_data->nameOf(first + i), reasons[i]);
                    continue;
                }
                if (keep && good.size() != before + i)
                    std::copy_n(kept.begin() + static_cast<std::ptrdiff_t>((before + i) * m_data->bytesEach), m_data->bytesEach, kept.begin() + static_cast<std::ptrdiff_t>(good.size() * m_data->bytesEach));
                good.push_back(images[first + i]);
            }
            first += count;
        }
        kept.resize(keep ? good.size() * m_data->bytesEach : 0);
        const bool fromIdx = !m_data->idx.values.empty();
        images = std::move(good);
        m_data->kept = std::move(kept);
        if (keep && fromIdx) m_data->idx = {};
    }

    std::string fingerprint() const {
        Sha256 hash;
        hash.add(m_data->preparation.key().dump());
        for (const auto& image : m_data->images) hash.add(std::as_bytes(std::span(&image.label, 1)));
        if (!m_data->kept.empty()) {
            hash.add(std::as_bytes(std::span(m_data->kept)));
        } else if (!m_data->idx.values.empty()) {
            hash.add(std::as_bytes(std::span(m_data->idx.values)));
        } else {
            for (std::size_t i = 0; i < m_data->images.size(); ++i) {
                const MappedFile file(m_data->images[i].file);
                file.setRandomAccess(true);
                const auto bytes = file.bytes();
                hash.add(m_data->nameOf(i) + "\n" + toText(static_cast<std::int64_t>(bytes.size())) + "\n");
                hash.add(bytes.first(std::min(bytes.size(), kHeadBytes)));
                hash.add(bytes.last(std::min(bytes.size(), kHeadBytes)));
            }
        }
        return "sha256:" + hash.hex();
    }

    Dataset finish() {
        prepareAll();
        const ImagePreparation& to = m_data->preparation;
        Dataset data;
        data.layout = RowLayout::Padded;
        const auto& images = m_data->images;
        for (const auto& image : images) m_report.taken(image.label == kIgnoredTarget ? "images without a label" : "labelled images");
        data.problems = m_report.problems(m_path.filename().string());
        if (images.empty()) {
            throw Error(ErrorCode::BadInput, m_path.string(), data.problems.empty() ? "holds no images; expected PNG or JPEG files, in one folder per class or flat, or an IDX file"
                                                                                  : "holds no usable image; " + data.problems.front().subject + " " + data.problems.front().message);
        }
        if (to.assumed) note(m_path.filename().string(), "the checkpoint does not say how its pictures are prepared; they are " + to.words(), "Put the preprocessor_config.json that the model was trained with beside config.json.");
        data.problems.insert(data.problems.end(), m_notes.begin(), m_notes.end());
        data.formats = m_report.formats();
        data.rejectedRows = m_report.rejectedRows();
        data.fingerprint = fingerprint();
        const auto count = static_cast<std::int64_t>(images.size());
        data.description = m_path.filename().string() + ": " + (count == 1 ? "1 image" : formatThousands(count) + (count < m_found ? " of " + formatThousands(m_found) : "") + " images") +
                           (m_labelSource.empty() ? "" : ", " + m_labelSource) + (data.rejectedRows > 0 ? ", rejected: " + formatThousands(data.rejectedRows) : "") + "; " + to.words() +
                           (to.assumed ? " (" + to.source + ")" : "");
        const int tokens = m_shape.image->tokens();
        std::vector<std::int64_t> labels;
        for (const auto& image : images) labels.push_back(image.label);
        const auto set = std::make_shared<const ImageSet>(std::move(m_data));
        for (std::size_t i = 0; i < labels.size(); ++i) {
            data.rows.push_back({{}, {labels[i]}, {}, {set, i, tokens}});
            data.tokens += tokens;
            data.targets += labels[i] != kIgnoredTarget;
        }
        data.tokensInText = data.tokens;
        return data;
    }

    const fs::path& m_path;
    const fs::path& m_folder;
    const ModelShape& m_shape;
    const ImageOptions& m_options;
    const JobContext& m_job;
    ClassLabels m_labels;
    std::unique_ptr<ImageSet::Data> m_data;
    RowReport m_report;
    std::vector<Problem> m_notes;
    std::string m_labelSource;
    std::int64_t m_found = 0;
};

}  // namespace

Dataset loadImages(const fs::path& path, const fs::path& folder, const ModelShape& shape, const ImageOptions& options, const JobContext& job) {
    if (!shape.image) throw Error(ErrorCode::Usage, path.string(), "holds images, but the model runs text");
    return Loader(path, folder, shape, options, job).load();
}

bool looksLikeImages(const fs::path& path) {
    if (fs::is_directory(path)) return true;
    if (!fs::is_regular_file(path)) return false;
    return looksLikeImage(MappedFile(path).bytes()) || looksLikeIdx(path);
}

Dataset loadModelData(const fs::path& path, const fs::path& folder, const ModelShape& shape, const Tokenizer* tokenizer, const DataOptions& options, const JobContext& job) {
    if (shape.image) return loadImages(path, folder, shape, {.maxRows = options.maxRows, .padToSquare = options.padToSquare}, job);
    if (looksLikeImages(path)) throw Error(ErrorCode::BadInput, path.string(), fs::is_directory(path) ? "is a folder; the model runs text: expected .txt, .jsonl or .json" : "holds images; the model runs text: expected .txt, .jsonl or .json");
    return loadDataset(path, tokenizer, shape.vocabSize, options, job);
}

}  // namespace resect

#pragma once
#include "core/data/dataset.h"
#include "core/data/image_preparation.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace resect {

/// The pictures of a data set as one model wants them. Those that fit into memory are decoded and resized once, when the set is read; of larger sets
/// each picture is decoded whenever it is asked for. Safe to read from several threads.
class ImageSet {
public:
    struct Data;
    explicit ImageSet(std::unique_ptr<Data> data);
    ~ImageSet();
    std::size_t size() const noexcept;
    const ImagePreparation& preparation() const noexcept;
    bool isInMemory() const noexcept;
    /// "cat/17.png", "image 17 of t10k-images-idx3-ubyte.gz"
    std::string name(std::size_t index) const;
    /// Writes f32 [channels, height, width]. Throws BadInput naming a file that was changed or is damaged behind its header.
    void write(std::size_t index, float* out) const;

private:
    std::unique_ptr<Data> m_data;
};

struct ImageOptions {
    std::int64_t maxRows = 0;              ///< 0 = all
    bool padToSquare = false;              ///< pad pictures to squares first, whatever the checkpoint says
    std::uint64_t keepBytes = 1ull << 30;  ///< prepared pictures, a byte per sample, are kept up to this size
    std::uint64_t maxMemory = 8ull << 30;  ///< OutOfMemory is thrown when an IDX file is larger
};

/// Reads a set of images for an image model; one row per picture, its target the label.
///
///  - a folder of folders, one per class (torchvision's ImageFolder), each searched through all its depths. A folder's name is matched to `id2label` of
///    config.json, case and underscores aside, or to one of its names between commas; else it is the number of a label; else, when there are as many
///    folders as labels, the folders in order of their bytes are labels 0, 1, ... (a note says so). The classes are interleaved in proportion, so that any
///    first and any last rows hold all of them
///  - a flat folder, with the labels in `labels.csv` (file, label: a name or a number; a head line is allowed) or without labels
///  - an IDX file of images, plain or gzipped, with the labels of idxLabelsOf(); or a folder with one such file
///  - one PNG or JPEG file, without a label
///
/// Files that are no PNG or JPEG, damaged, of a size that cannot be used, or not listed are rejected, counted and reported; when more files are found than
/// are kept in memory only their headers are read here. Hidden files are passed over. A model without a classifier gets no labels.
///
/// `folder`: of the checkpoint; its files say how pictures are prepared (readImagePreparation). Fingerprint: of prepared pictures and labels; of sets that are
/// not kept in memory of names, sizes, and the first and last 4 KiB of each file.
///
/// Throws NotFound, Usage (a text model), OutOfMemory, Stopped; Mismatch: another number of labels than of images; BadInput: a label out of range (naming
/// the row), folders that match no label, no usable picture, and as readIdx and readImagePreparation.
Dataset loadImages(const std::filesystem::path& path, const std::filesystem::path& folder, const ModelShape& shape, const ImageOptions& options,
                   const JobContext& job = {});

/// Could this be a set of images rather than text? A folder, or a file that begins as PNG, JPEG or IDX do. False for what does not exist.
bool looksLikeImages(const std::filesystem::path& path);

/// Reads the data for a model of this shape, whatever it runs: loadImages for image models, else loadDataset. Refuses text for an image model and images for
/// a text model (BadInput).
Dataset loadModelData(const std::filesystem::path& path, const std::filesystem::path& folder, const ModelShape& shape, const Tokenizer* tokenizer,
                      const DataOptions& options, const JobContext& job = {});

}  // namespace resect

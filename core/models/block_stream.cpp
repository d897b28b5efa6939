#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/models/decoder.h"
#include "core/models/extension.h"

#include <torch/types.h>
#include <torch/utils.h>

namespace resect {

struct BlockStream::Data {
    Data(const Checkpoint& checkpoint, const LoadOptions& options)
        : source(checkpointWeights(checkpoint, frozen(options))),
          model(single(Anatomy::of(checkpoint).shape()), frozen(options), source, Decoder::Parts::None) {}
    static ModelShape single(ModelShape shape) {
        if (!shape.towers.empty()) {
            throw Error(ErrorCode::Unsupported, std::string(familyOf(shape).title), "a model of several towers cannot be run block by block; it must fit into memory");
        }
        return shape;
    }
    static LoadOptions frozen(LoadOptions options) {
        options.trainable = false;
        return options;
    }
    WeightSource source;
    Decoder model;
    Cut cut;
};

BlockStream::BlockStream(const Checkpoint& checkpoint, const LoadOptions& options) : m_data(std::make_unique<Data>(checkpoint, options)) {
    requireNoExtensions(checkpoint, "it cannot be run block by block; it must fit into memory");
    configureRuntime(0);
}
BlockStream::~BlockStream() = default;

const ModelShape& BlockStream::shape() const noexcept { return m_data->model.shape(); }

void BlockStream::setCut(const Cut& cut) {
    m_data->model.setCut(cut);
    m_data->cut = cut;
}

void BlockStream::run(std::span<const TokenBatch> batches, Observer* observer, const std::function<void(std::size_t)>& onBatch,
                      const std::function<void(std::size_t, const torch::Tensor&, const torch::Tensor&)>& finish, const JobContext& job) {
    const torch::NoGradGuard noGrad;
    Decoder& model = m_data->model;
    const auto forBatches = [&](const std::function<void(std::size_t)>& visit) {
        for (std::size_t i = 0; i < batches.size() && !job.stopped(); ++i) {
            visit(i);
        }
    };
    std::vector<torch::Tensor> streams(batches.size());
    model.loadEmbedding(m_data->source);
    forBatches([&](std::size_t i) { streams[i] = model.embed(batches[i]); });
    model.freeEmbedding();
    for (int block = 0; block < model.shape().numBlocks() && !job.stopped(); ++block) {
        if (!m_data->cut.blocks.empty() && m_data->cut.blocks[static_cast<std::size_t>(block)].block) {
            continue;
        }
        model.loadBlock(block, m_data->source);
        forBatches([&](std::size_t i) {
            if (onBatch) {
                onBatch(i);
            }
            streams[i] = model.runBlocks(std::move(streams[i]), batches[i], block, block + 1, observer, nullptr);
        });
        model.freeBlock(block);
        job.progress({block + 1.0, static_cast<double>(model.shape().numBlocks()), "blocks", "block by block"});
    }
    model.loadHead(m_data->source);
    forBatches([&](std::size_t i) {
        if (onBatch) {
            onBatch(i);
        }
        const auto normed_BTD = model.finalNorm(streams[i]);
        streams[i].reset();
        if (finish) {
            finish(i, normed_BTD, model.head(normed_BTD));
        }
    });
    model.freeEmbedding();
}

}  // namespace resect

// Our side of the training-step benchmark: the same commands on stdin and JSON lines on stdout as peer_llama.py; driven by train_step.py.
#include "core/models/model.h"
#include "core/models/runtime.h"
#include "core/train/adamw.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <chrono>
#include <ctime>
#include <iostream>
#include <map>
#include <string>

namespace {

using namespace resect;

double processSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// "--name value" pairs.
std::map<std::string, std::string> optionsOf(int argc, char** argv) {
    std::map<std::string, std::string> options;
    for (int i = 1; i + 1 < argc; i += 2) {
        options[std::string(argv[i]).substr(2)] = argv[i + 1];
    }
    return options;
}

ModelShape shapeOf(const std::map<std::string, std::string>& options) {
    const auto number = [&](const char* name) { return std::stoi(options.at(name)); };
    ModelShape shape;
    shape.modelType = "llama";
    shape.architecture = "LlamaForCausalLM";
    shape.activation = "silu";
    shape.normEps = 1e-5;
    shape.hiddenSize = number("width");
    shape.vocabSize = number("vocab");
    shape.maxPositions = number("tokens");
    shape.tiedEmbeddings = number("tied") != 0;
    BlockShape block;
    block.numHeads = number("heads");
    block.numKvHeads = number("kv-heads");
    block.headDim = number("head-dim");
    block.headsPerKv.assign(static_cast<std::size_t>(block.numKvHeads), block.numHeads / block.numKvHeads);
    block.ffnSize = number("ffn");
    shape.blocks.assign(static_cast<std::size_t>(number("blocks")), block);
    return shape;
}

/// Forward, backward, clipping to norm 1, AdamW with f32 master weights.
class Trainer {
public:
    explicit Trainer(LanguageModel& model) : m_model(model) {
        m_model.visitParameters([&](const std::string& name, torch::Tensor& parameter) {
            AdamWSlot slot;
            slot.name = name;
            slot.parameter = parameter;
            const torch::NoGradGuard noGrad;
            slot.master = parameter.scalar_type() == torch::kFloat32 ? parameter : parameter.detach().to(torch::kFloat32);
            slot.moment1 = torch::zeros_like(slot.master);
            slot.moment2 = torch::zeros_like(slot.master);
            slot.weightDecay = parameter.dim() > 1 ? 0.01 : 0;
            m_slots.push_back(slot);
        });
    }
    double step(const TokenBatch& batch, const torch::Tensor& targets) {
        for (AdamWSlot& slot : m_slots) {
            slot.parameter.mutable_grad().reset();
        }
        const auto loss = m_model.loss(batch, targets);
        loss.backward();
        for (AdamWSlot& slot : m_slots) {
            slot.gradient = slot.parameter.grad();
        }
        AdamWStep step;
        step.learningRate = 1e-4;
        step.step = ++m_steps;
        step.gradientScale = std::min(1.0, 1.0 / (gradientNorm(m_slots) + 1e-6));
        adamwStep(m_slots, step);
        for (AdamWSlot& slot : m_slots) {
            slot.gradient.reset();
        }
        return loss.item<double>();
    }

private:
    LanguageModel& m_model;
    std::vector<AdamWSlot> m_slots;
    std::int64_t m_steps = 0;
};

}  // namespace

int main(int argc, char** argv) {
    restartWithWaitPolicy(argv);
    const auto options = optionsOf(argc, argv);
    configureRuntime(options.contains("threads") ? std::stoi(options.at("threads")) : 0);
    const auto model = LanguageModel::random(shapeOf(options), {.device = torch::kCPU, .dtype = parseDtype(options.at("dtype")), .trainable = true}, 0.02, 1);
    Trainer trainer(*model);
    torch::manual_seed(0);
    const auto ids = torch::randint(std::stoi(options.at("vocab")), {std::stoi(options.at("batch")), std::stoi(options.at("tokens"))}, torch::kInt64);
    auto targets = ids.roll(-1, 1).clone();
    targets.select(1, targets.size(1) - 1).fill_(-100);
    const TokenBatch batch{ids, {}, {}};
    std::cout << "{\"ready\": " << model->numParameters() << "}" << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        const auto start = std::chrono::steady_clock::now();
        const double cpu = processSeconds();
        double value = 0;
        if (line == "train") {
            value = trainer.step(batch, targets);
        } else {
            const torch::NoGradGuard noGrad;
            value = model->logits(batch).sum().item<double>();
        }
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        std::cout << "{\"seconds\": " << seconds << ", \"cpu\": " << processSeconds() - cpu << ", \"value\": " << value << "}" << std::endl;
    }
}

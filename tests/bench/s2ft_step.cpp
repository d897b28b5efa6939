// Step time and memory of S2FT against full fine-tuning and LoRA on Llama-shaped models of 8 blocks with random weights, as ratios:
//
//   build/bin/bench_s2ft_step [--steps 5] [--cases 512,1024,2048] [--dtype bf16] [--vocab 512] [--threads 0]
//
//   build/bin/bench_s2ft_step --switch 1          time to exchange adapters in resident models of 2, 8 and 24 blocks
//
// Every recipe runs in a process of its own. They take their steps in turn, so that whatever else the machine does hits all of them alike; the
// table gives the medians of wall and processor time and their ratios to S2FT. Memory is the highest resident size during the steps less the size with
// the weights loaded and the batch run once without gradients.
#include "core/method/method.h"
#include "core/models/model.h"
#include "core/models/runtime.h"
#include "core/train/adamw.h"
#include "core/train/losses.h"
#include "core/train/recipe.h"
#include "core/train/trained_parts.h"
#include "plugins/s2ft/s2_adapter.h"
#include "plugins/s2ft/s2_linear.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

using namespace resect;

struct Case {
    int width, heads, ffn, batch;
};
const std::map<std::string, Case> kCases{{"512", {512, 8, 1376, 4}}, {"1024", {1024, 16, 2752, 1}}, {"2048", {2048, 32, 5504, 1}}};
constexpr int kBlocks = 8, kTokens = 512;

struct Contender {
    const char *name, *recipe;
    Json parameters;
};
const std::vector<Contender>& contenders() {
    static const std::vector<Contender> list{
        {"s2ft", "s2ft", {{"o_ratio", 0.052}, {"d_ratio", 0.02}}},
        {"full", "full", Json::object()},
        {"lora all", "lora", {{"lora_rank", 32}, {"lora_alpha", 64}, {"lora_targets", "all-linear"}}},
        {"lora o,down", "lora", {{"lora_rank", 32}, {"lora_alpha", 64}, {"lora_targets", "o_proj,down_proj"}}},
    };
    return list;
}

double statusMegabytes(const char* field) {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with(field)) return std::strtod(line.c_str() + std::string(field).size(), nullptr) / 1024;
    return 0;
}

ModelShape shapeOf(const Case& sizes, int vocabulary) {
    ModelShape shape;
    shape.modelType = "llama";
    shape.architecture = "LlamaForCausalLM";
    shape.activation = "silu";
    shape.normEps = 1e-5;
    shape.hiddenSize = sizes.width;
    shape.vocabSize = vocabulary;
    shape.maxPositions = kTokens;
    BlockShape block;
    block.numHeads = block.numKvHeads = sizes.heads;
    block.headDim = sizes.width / sizes.heads;
    block.headsPerKv.assign(static_cast<std::size_t>(sizes.heads), 1);
    block.ffnSize = sizes.ffn;
    shape.blocks.assign(kBlocks, block);
    return shape;
}

/// One recipe, a step for every line on stdin: forward, backward, clipping, AdamW. Answers "seconds processor-seconds megabytes" after each, "parameters" first.
int work(const Contender& contender, const Case& sizes, const std::string& dtype, int vocabulary, int threads) {
    MethodRegistry registry;
    loadPlugins(registry);
    for (const auto& known : registry.recipes()) addRecipe(known);
    configureRuntime(threads);
    const auto options = trainOptions(recipe(contender.recipe), contender.parameters);
    const auto model = LanguageModel::random(shapeOf(sizes, vocabulary), {torch::kCPU, parseDtype(dtype), false}, 0.02, 1);
    torch::manual_seed(0);
    TrainBatch batch;
    batch.tokens.ids_BT = torch::randint(vocabulary, {sizes.batch, kTokens}, torch::kInt64);
    batch.targets_BT = batch.tokens.ids_BT.roll(-1, 1).clone();
    batch.counted = batch.targets_BT.numel();
    {
        // Libraries and generated code are loaded by the first pass whatever is trained.
        const torch::NoGradGuard noGrad;
        model->loss(batch.tokens, batch.targets_BT);
    }
    releaseFreedMemory();
    const double weights = statusMegabytes("VmRSS:");
    std::ofstream("/proc/self/clear_refs") << "5";
    const auto parts = options.recipe->prepare(*model, {options, 1});
    std::vector<AdamWSlot> slots;
    std::int64_t trained = 0;
    for (const auto& [name, parameter, decays] : parts->tensors()) {
        const torch::NoGradGuard noGrad;
        const auto state = torch::zeros(parameter.sizes(), torch::kFloat32);
        slots.push_back({name, parameter, parameter.scalar_type() == torch::kFloat32 ? parameter : parameter.detach().to(torch::kFloat32), state.clone(), state, {}, 0.01});
        trained += parameter.numel();
    }
    std::cout << trained << std::endl;
    std::int64_t step = 0;
    for (std::string line; std::getline(std::cin, line);) {
        const auto start = std::chrono::steady_clock::now();
        const auto processor = std::clock();
        accumulateGradients(*model, nullptr, batch, {}, 1);
        for (auto& slot : slots) slot.gradient = slot.parameter.grad();
        const double norm = gradientNorm(slots);
        adamwStep(slots, {.learningRate = 1e-4, .step = ++step, .gradientScale = std::min(1.0, 1 / (norm + 1e-6))});
        for (auto& slot : slots) slot.gradient = slot.parameter.mutable_grad() = torch::Tensor();
        parts->parametersChanged();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        std::cout << seconds << " " << double(std::clock() - processor) / CLOCKS_PER_SEC << " " << statusMegabytes("VmHWM:") - weights << std::endl;
    }
    return 0;
}

/// A child that runs one contender.
class Worker {
public:
    Worker(const std::string& name, const std::vector<std::string>& arguments) {
        int in[2], out[2];
        // Closed in the other children, or none would see the end of its input.
        if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
        m_pid = fork();
        if (m_pid == 0) {
            dup2(in[0], 0);
            dup2(out[1], 1);
            std::vector<char*> list;
            for (const auto& argument : arguments) list.push_back(const_cast<char*>(argument.c_str()));
            list.push_back(nullptr);
            execv("/proc/self/exe", list.data());
            _exit(127);
        }
        close(in[0]);
        close(out[1]);
        m_in = fdopen(in[1], "w");
        m_out = fdopen(out[0], "r");
        if (std::fscanf(m_out, "%ld", &trained) != 1) throw std::runtime_error(name + " did not start");
    }
    Worker(const Worker&) = delete;
    ~Worker() {
        std::fclose(m_in);
        std::fclose(m_out);
        waitpid(m_pid, nullptr, 0);
    }
    void step(bool counts) {
        std::fputs("step\n", m_in);
        std::fflush(m_in);
        double taken = 0, worked = 0;
        if (std::fscanf(m_out, "%lf %lf %lf", &taken, &worked, &megabytes) != 3) throw std::runtime_error("a step failed");
        if (counts) seconds.push_back(taken), processor.push_back(worked);
    }
    static double median(std::vector<double> values) {
        std::ranges::sort(values);
        return values[values.size() / 2];
    }
    long trained = 0;
    double megabytes = 0;
    std::vector<double> seconds, processor;

private:
    pid_t m_pid = 0;
    FILE *m_in = nullptr, *m_out = nullptr;
};

void compare(const std::string& width, int steps, const std::string& dtype, const std::string& vocabulary, const std::string& threads, const char* program) {
    std::vector<std::unique_ptr<Worker>> workers;
    for (std::size_t i = 0; i < contenders().size(); ++i)
        workers.push_back(std::make_unique<Worker>(contenders()[i].name, std::vector<std::string>{program, "--work", std::to_string(i), width, dtype, vocabulary, threads}));
    for (int step = -1; step < steps; ++step)
        for (auto& worker : workers) worker->step(step >= 0);
    const Case& sizes = kCases.at(width);
    std::printf("\nwidth %s, FFN %d, %d blocks, batch %d x %d, vocabulary %s, %s: median of %d steps\n", width.c_str(), sizes.ffn, kBlocks, sizes.batch, kTokens, vocabulary.c_str(),
                dtype.c_str(), steps);
    std::printf("%-12s %10s %9s %8s %10s %8s %14s %8s\n", "recipe", "trained", "ms/step", "/ s2ft", "cpu ms", "/ s2ft", "MB + weights", "/ s2ft");
    const Worker& ours = *workers[0];
    for (std::size_t i = 0; i < workers.size(); ++i) {
        const Worker& worker = *workers[i];
        const double wall = Worker::median(worker.seconds), busy = Worker::median(worker.processor);
        std::printf("%-12s %10ld %9.0f %8.2f %10.0f %8.2f %14.0f %8.2f\n", contenders()[i].name, worker.trained, 1e3 * wall, wall / Worker::median(ours.seconds), 1e3 * busy,
                    busy / Worker::median(ours.processor), worker.megabytes, worker.megabytes / ours.megabytes);
    }
    std::fflush(stdout);
}

/// Exchanges two adapters of two blocks (2 heads and 32 channels each) back and forth in models of growing depth, and rebuilds the same weights
/// with a LoRA pair of rank 32 for comparison. The best of 21 rounds: a switch is so short that others on the machine would be measured.
void timeSwitches(const std::string& dtype) {
    constexpr int kWidth = 1024, kRounds = 21;
    configureRuntime(0);
    std::printf("%-8s %14s %12s %12s\n", "blocks", "parameters", "switch ms", "LoRA ms");
    for (const int blocks : {2, 8, 24}) {
        auto shape = shapeOf(kCases.at(std::to_string(kWidth)), 512);
        shape.blocks.resize(static_cast<std::size_t>(blocks), shape.blocks.front());
        const auto model = LanguageModel::random(shape, {torch::kCPU, parseDtype(dtype), false}, 0.02, 1);
        const auto adapterFrom = [&](int firstUnit) {
            s2::Adapter adapter;
            for (int block = 0; block < 2; ++block)
                for (const auto part : {s2::Part::Output, s2::Part::Down}) {
                    const auto pool = s2::poolsOf(shape, part)[static_cast<std::size_t>(block)];
                    std::vector<int> units;
                    for (int i = 0; i < (part == s2::Part::Output ? 2 : 32); ++i) units.push_back(firstUnit + i);
                    const auto weight = s2::writableWeight(*model, pool.block, pool.role);
                    s2::Delta delta{s2::Side::In, weight.size(0), weight.size(1), {}, {}};
                    for (const auto place : pool.places(units)) delta.index.push_back(static_cast<std::int32_t>(place));
                    delta.value = torch::randn({delta.out, static_cast<std::int64_t>(delta.index.size())});
                    adapter.deltas[pool.tensor] = delta;
                }
            return adapter;
        };
        const auto first = adapterFrom(0), second = adapterFrom(5);
        std::vector<double> switches, rebuilds;
        const auto timed = [](std::vector<double>& into, const auto& body) {
            const auto start = std::chrono::steady_clock::now();
            body();
            into.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        };
        s2::Switcher switcher(*model);
        const torch::NoGradGuard noGrad;
        for (int round = 0; round < kRounds; ++round) {
            timed(switches, [&] { switcher.apply(round % 2 ? &first : &second); });
            timed(rebuilds, [&] {
                for (const auto& [name, delta] : first.deltas) {
                    const auto role = name.substr(name.find('.', 13) + 1);
                    auto weight = s2::writableWeight(*model, name[13] - '0', role.substr(0, role.size() - 7));
                    weight.add_(torch::matmul(torch::ones({delta.out, 32}, weight.options()), torch::zeros({32, delta.in}, weight.options())));
                }
            });
        }
        std::printf("%-8d %14ld %12.2f %12.2f\n", blocks, static_cast<long>(model->numParameters()), 1e3 * std::ranges::min(switches), 1e3 * std::ranges::min(rebuilds));
    }
}

}  // namespace

int main(int argc, char** argv) {
    restartWithWaitPolicy(argv);
    if (argc == 3 && std::string(argv[1]) == "--switch") {
        timeSwitches("bf16");
        return 0;
    }
    if (argc == 7 && std::string(argv[1]) == "--work") return work(contenders()[std::stoul(argv[2])], kCases.at(argv[3]), argv[4], std::stoi(argv[5]), std::stoi(argv[6]));
    std::map<std::string, std::string> options{{"--steps", "5"}, {"--cases", "512,1024,2048"}, {"--dtype", "bf16"}, {"--vocab", "512"}, {"--threads", "0"}};
    for (int i = 1; i + 1 < argc; i += 2) options.at(argv[i]) = argv[i + 1];
    std::string width;
    for (const char c : options["--cases"] + ",") {
        if (c != ',') width += c;
        else if (!width.empty()) compare(std::exchange(width, {}), std::stoi(options["--steps"]), options["--dtype"], options["--vocab"], options["--threads"], argv[0]);
    }
    return 0;
}

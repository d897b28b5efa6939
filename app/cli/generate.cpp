#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/data/chat_template.h"
#include "core/worker/generation.h"
#include "core/worker/opened.h"
#include "core/worker/run_source.h"

#include <iostream>

namespace resect::cli {

namespace {

struct GenerateOptions : Common {
    std::string checkpoint, prompt, plan, system;
    std::vector<std::string> images;
    bool chat = false;
    SamplingOptions sampling;
};

/// The prompt as the user's message of a conversation, up to where the assistant answers.
std::string chatPrompt(const GenerateOptions& options, const std::filesystem::path& checkpoint) {
    const auto chat = ChatTemplate::find(checkpoint);
    if (!chat) throw Error(ErrorCode::NotFound, checkpoint.string(), "has no chat template, so that --chat cannot be used");
    Json messages = Json::array();
    if (!options.system.empty()) messages.push_back({{"role", "system"}, {"content", options.system}});
    messages.push_back({{"role", "user"}, {"content", options.prompt}});
    return chat->renderMessages(messages, /*addGenerationPrompt=*/true).text;
}

void runGenerate(GenerateOptions& options) {
    if (!options.system.empty() && !options.chat) throw Error(ErrorCode::Usage, "--system", "needs --chat");
    configureRuntime(options.threads);
    const CommandJob job(options);
    const ExportSource source = resolveExportSource(options.checkpoint, job.context());
    OpenedCheckpoint opened(source.checkpoint);
    std::optional<Cut> cut;
    if (!options.plan.empty()) {
        const EditPlan plan = readPlan(options.plan);
        requireLegal(plan, opened);
        cut = cutOf(plan, opened.shape());
    }
    options.sampling.seed = options.seed;
    const std::string prompt = options.chat ? chatPrompt(options, source.checkpoint) : options.prompt;
    if (!options.json && !options.chat) std::cout << prompt << std::flush;
    const Generation result = generateText(opened, prompt, cut, options.sampling, {options.device, options.dtype}, job.context(),
                                           [&](const GeneratedToken& token) {
                                               if (!options.json) std::cout << token.text << std::flush;
                                           },
                                           options.chat ? SpecialTokens::Omit : SpecialTokens::Add, {options.images.begin(), options.images.end()});
    if (!options.json) {
        std::cout << "\n";
        std::cerr << result.tokens.size() << " tokens, " << toText(result.tokensPerSecond, 3) << " tokens/s\n";
    } else {
        Json json{{"prompt", prompt}, {"text", result.text}, {"tokensPerSecond", result.tokensPerSecond}, {"tokens", Json::array()}};
        for (const auto& token : result.tokens) json["tokens"].push_back({{"id", token.id}, {"text", token.text}, {"logProbability", token.logProbability}});
        printJson(json);
    }
    if (job.context().stopped()) setExitCode(exitCode(ErrorCode::Stopped));
}

}  // namespace

void addGenerate(CLI::App& app) {
    auto options = std::make_shared<GenerateOptions>();
    CLI::App* command = app.add_subcommand("generate", "Continue a prompt, with the checkpoint as it is or as a plan would make it");
    command->add_option("CKPT", options->checkpoint, "Checkpoint with a tokenizer, or a run folder (its best checkpoint)")->required();
    command->add_option("--prompt", options->prompt, "Text to continue")->required();
    command->add_flag("--chat", options->chat, "The prompt is a user's message: put it into the checkpoint's chat template");
    command->add_option("--system", options->system, "System message in front of it");
    command->add_option("--image", options->images, "PNG or JPEG for an image token of the prompt (LLaVA), once for each, in order");
    command->add_option("--plan", options->plan, "Run the candidate that this plan gives (masked, nothing is written)");
    command->add_option("--max-new-tokens", options->sampling.maxNewTokens, "Stop after so many tokens")->capture_default_str()->check(CLI::PositiveNumber);
    command->add_option("--temperature", options->sampling.temperature, "0 = greedy")->capture_default_str()->check(CLI::NonNegativeNumber);
    command->add_option("--top-k", options->sampling.topK, "Sample from the k likeliest tokens, 0 = all")->capture_default_str()->check(CLI::NonNegativeNumber);
    command->add_option("--top-p", options->sampling.topP, "Sample from the likeliest tokens that reach this probability")->capture_default_str()->check(CLI::Range(0.0, 1.0));
    addCommon(*command, *options, Shared::Compute);
    command->footer("Example:\n  resect-cli generate MODEL --prompt 'Once upon a time' --max-new-tokens 40\n  resect-cli generate MODEL --chat --prompt 'Why is the sky blue?'\n"
                    "  resect-cli generate LLAVA --image cat.png --prompt 'USER: <image>\\nWhat is this? ASSISTANT:'");
    command->callback([options] { runGenerate(*options); });
}

}  // namespace resect::cli

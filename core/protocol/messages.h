#pragma once
#include "core/protocol/json.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

/// The messages between the window and its worker (`resect-cli serve`): one JSON object per line.
///
///   request   {"id": 7, "call": "measure", "args": {...}}
///   progress  {"id": 7, "progress": {"done": 12, "total": 40, "unit": "tokens", "stage": "scoring"}, "partial": {...}?}
///   result    {"id": 7, "result": {...}}
///   error     {"id": 7, "error": {"code": "BadInput", "subject": "...", "message": "..."}}
///
/// The first request must be `hello`. Jobs (measure, preview, generate, attention, export, health, tensor_look, router_tokens, diff) queue and run one at a time; all other calls are answered
/// at once, also while a job runs. `cancel` ends a queued or running job: it then answers with what is finished, or error Stopped.
/// A number that is not finite is sent as null. Paths are absolute.
///
/// | call | args | result |
/// |---|---|---|
/// | hello | {protocol} | HelloMessage |
/// | open | {path} | ModelMessage (replaces the model that was open) |
/// | close | {} | {} |
/// | health | {} (job) | {problems, badTensors, complete} of the whole checkpoint, all data read; stopped: what was found until then |
/// | tensors | {offset, count, filter, sort: name, dtype, elements, bytes or file, descending} | {total, rows: [{name, dtype, shape, file, bytes}]} |
/// | tensor_look | {name, cells} (job) | core/worker/tensor_look.h: TensorLook; at most 256 x 256 cells |
/// | router_tokens | {text, or data: DataMessage and row; maxTokens, device, dtype} (job) | {tokens: [text], blocks: [{block, numExperts, experts: [[..]], gates: [[..]]}], shortened}: the experts of each token, most weight first |
/// | diff | {path, shapesOnly} (job) | the open checkpoint against another (or a run's result): `resect-cli diff --json` with {left, right, unchanged}; stopped: what was compared until then |
/// | methods | {} | {methods: [MethodMessage], plugins: [{file, methods, error}], recipes: [MethodMessage]} |
/// | measure | {method, set: {}, data: DataMessage, device, dtype, stream, workspace} (job) | MeasureMessage; a cached one comes at once |
/// | measures | {workspace} | {measures: [MeasureMessage]} of the open model |
/// | dataset | {file, name, first: [..], count: [..]} | {shape, values, errors}: a rectangle of one dataset, at most 4M values |
/// | plan_check | {plan} | PlanCheckMessage |
/// | plan_suggest | {method, set: {}, file} | {plan, title} |
/// | preview | {plan, data: DataMessage, device, dtype, maxRows} (job) | PreviewMessage; the same as `partial` while it runs |
/// | generate | {prompt, plan?, checkpoint?, maxNewTokens, temperature, topK, topP, seed} (job) | {text, tokens: [{id, text, logProbability}]}; tokens come as `partial` {token} |
/// | attention | {text, block, head} (job) | {tokens: [text], weights: [[..]]}, at most 128 x 128 |
/// | recover_estimate | {recipe, set: {}, plan, data: DataMessage, device, dtype} | EstimateMessage, what is known at once |
/// | recover_time | as recover_estimate (job) | EstimateMessage with a measured time |
/// | run_create | {recipe, set: {}, plan, data, evalData?, control?: true, device, dtype, workspace, out?} | {folder}: writes job.json, and that of the control in FOLDER-control; the window starts `resect-cli run` itself |
/// | export | {source, plan?, to, way, dtype, shardBytes, data?} (job): `to` ending in .gguf writes that file | ExportMessage |
/// | cancel | {id} | {} |
namespace resect::protocol {

inline constexpr int kProtocolVersion = 1;
/// A number that was not measured.
inline constexpr double kNotKnown = std::numeric_limits<double>::quiet_NaN();

struct ProblemMessage {
    std::string severity, subject, message, advice;  ///< severity: note, warning, error
};

struct HelloMessage {
    int protocol = kProtocolVersion;
    std::string version;
    std::vector<std::string> devices;  ///< "cpu", "cuda:0", ...
    std::string torchVersion;
    int threads = 0;
};

struct BlockMessage {
    int index = 0;
    std::int64_t parameters = 0, attentionParameters = 0, ffnParameters = 0;
    bool hasAttention = true, hasFfn = true;
    int numHeads = 0, numKvHeads = 0, headDim = 0, ffnSize = 0, numExperts = 0;
    std::vector<int> headsPerKv;
    std::string tower;                        ///< "vision", "text"; empty where the model is one
};

/// Tensors by their headers: what the configuration calls for against what is stored.
struct TensorCountsMessage {
    bool known = false;                        ///< false: the configuration does not say which tensors there should be
    std::int64_t expected = 0, missing = 0, misshapen = 0;
    std::int64_t unexpected = 0;               ///< stored, but not called for
    std::int64_t ignored = 0;                  ///< stored, not called for and harmless: tables that follow from the configuration, copies of tied tensors
};

struct ModelMessage {
    std::string path, name, fingerprint;
    std::string family, familyTitle, dtype;   ///< family = model_type; dtype as stored ("F32", or "mixed")
    bool understood = true;                   ///< false: tensors can be inspected, nothing can be cut; problems say why
    bool tied = false;
    bool hasTokenizer = false;
    std::int64_t parameters = 0, bytes = 0, numTensors = 0, numShards = 0;
    std::int64_t vocabSize = 0, hiddenSize = 0, maxPositions = 0;
    std::int64_t linkParameters = 0;          ///< of what links several towers: a projector, projections
    std::string input = "text";               ///< what it runs: text, images
    std::int64_t embeddingParameters = 0, headParameters = 0, finalNormParameters = 0;
    std::string licence;                      ///< from the model card or a LICENSE file, "" when there is none
    std::vector<std::string> edits;           ///< operations that this family supports: "drop_blocks", ...
    std::vector<BlockMessage> blocks;
    std::vector<ProblemMessage> problems;
    TensorCountsMessage tensorCounts;
};

/// Where calibration, training or evaluation data comes from.
struct DataMessage {
    std::string file;                         ///< text or rows; for image models an image folder, an IDX file or one picture
    int rowLength = 256;                      ///< text only; 0 = 256, or the model's context where that is shorter
    std::int64_t maxRows = 64;                ///< 0 = all; below 0 = 64 rows of text, 1,024 images
    std::string layout = "chunks";            ///< chunks, packed, padded; text only
    std::string imageAspect;                  ///< "pad": pictures are padded to squares first; "" = as the checkpoint says
};

struct ParameterMessage {
    std::string name, title, help, type, unit; ///< type: integer, real, boolean, choice, text, integer_list, file
    Json defaultValue;
    Json minimum, maximum;                     ///< null = none
    std::vector<std::string> choices;
    bool advanced = false;
};

struct MethodMessage {
    std::string id, title, summary, paper;
    std::vector<std::string> families;         ///< model types that it works on; empty = all
    bool measures = false, plans = false, trains = false;
    std::vector<ParameterMessage> measureParameters, planParameters, trainParameters;
};

struct AxisMessage {
    std::string name, component;               ///< component "" when the axis counts something else
    std::vector<std::int64_t> ids;
};

struct DatasetMessage {
    std::string name, kind, title, unit, help; ///< kind: bars, matrix, curve, histogram, tokens, scatter
    std::string higher;                        ///< keep, removable, neutral
    std::vector<AxisMessage> axes;
    std::vector<std::int64_t> shape;
    std::int64_t samples = 0;
    bool hasErrors = false;
    double minimum = 0, maximum = 0;           ///< of the finite values
};

struct MeasureMessage {
    std::string file, method, dataDescription; ///< file: the HDF5 file
    Json parameters;
    std::string created;                       ///< ISO 8601, UTC
    std::int64_t samplesDone = 0, samplesTotal = 0;
    bool cached = false;
    std::vector<DatasetMessage> datasets;
    std::vector<ProblemMessage> notes;
};

struct CostMessage {
    std::int64_t parameters = 0, activeParameters = 0;
    std::int64_t bytes = 0;                    ///< on disk in the stored dtype
    std::int64_t bytesF32 = 0, bytesBf16 = 0;
    std::int64_t kvBytesPer1000 = 0;           ///< KV cache of 1,000 tokens at 2 bytes an element
    double prefillFlopsPerToken = 0;           ///< averaged over a prompt of 1,024 tokens (or the model's context when shorter)
    double decodeFlopsPerToken = 0;            ///< at that context
};

struct VerdictMessage {
    std::string runtime;                       ///< transformers, vLLM, llama.cpp, PEFT
    std::string verdict;                       ///< opens, padded, code, no
    std::vector<std::string> reasons;
    std::string evidence;                      ///< of a finished export: checked (this folder was opened in it here) or expected
};

struct PlanProblemMessage {
    ProblemMessage problem;
    int edit = -1;
    std::vector<Json> instead;                 ///< edits as in plan.json
    std::vector<std::string> insteadTitles;
};

struct PlanCheckMessage {
    bool legal = false;
    std::vector<PlanProblemMessage> problems;
    std::vector<std::string> titles;           ///< one per edit
    std::string hash;
    bool uniform = true;                       ///< the result is a stock shape (way "uniform")
    CostMessage before, after;
    std::vector<VerdictMessage> verdicts;
    std::vector<BlockMessage> blocks;          ///< of the source, with what is left in each; a dropped block has parameters 0
};

struct PreviewMessage {
    std::string unit = "tokens";               ///< tokens, images: what the numbers are means over
    std::int64_t rowsDone = 0, rowsTotal = 0;
    double perplexity = 0, perplexityLow = 0, perplexityHigh = 0;        ///< of the candidate, 95 % interval: exp of the mean loss
    double baseline = 0, baselineLow = 0, baselineHigh = 0;
    double kl = 0, klLow = 0, klHigh = 0;      ///< mean KL(uncut || candidate) per token or image, nats
    /// Images: share of the labelled ones whose likeliest label is right, with Wilson's 95 % interval. NaN = not known.
    double accuracy = kNotKnown, accuracyLow = kNotKnown, accuracyHigh = kNotKnown;
    double baselineAccuracy = kNotKnown, baselineAccuracyLow = kNotKnown, baselineAccuracyHigh = kNotKnown;
    double tokensPerSecond = 0, baselineTokensPerSecond = 0;             ///< of images: images
    bool final = false;
};

struct EstimateMessage {
    std::int64_t memoryBytes = 0, trainableParameters = 0, steps = 0, tokens = 0;   ///< tokens: of images, images
    std::string unit = "tokens";               ///< tokens, images
    double seconds = 0;                        ///< 0 = not measured yet
    std::string basis;                         ///< how it was obtained, one sentence
    std::vector<ProblemMessage> problems;
};

struct ExportMessage {
    std::string folder, way;
    std::int64_t bytes = 0;
    std::vector<std::string> files;
    bool verified = false;                     ///< reopened and compared
    double maxAbsLogitError = 0;
    double kl = 0;
    std::int64_t tensorsCompared = 0;          ///< of a GGUF: read back and compared with the source; 0 otherwise
    double maxTensorError = 0;                 ///< of a GGUF: largest rounding error of a block-quantised weight
    std::string tokenizer;                     ///< of a GGUF: kind of the tokenizer in it
    std::vector<VerdictMessage> opensIn;
    std::vector<std::string> loadCommands;     ///< same order as opensIn
    std::vector<ProblemMessage> problems;
};

RESECT_JSON_DECLARE(ProblemMessage)
RESECT_JSON_DECLARE(HelloMessage)
RESECT_JSON_DECLARE(BlockMessage)
RESECT_JSON_DECLARE(TensorCountsMessage)
RESECT_JSON_DECLARE(ModelMessage)
RESECT_JSON_DECLARE(DataMessage)
RESECT_JSON_DECLARE(ParameterMessage)
RESECT_JSON_DECLARE(MethodMessage)
RESECT_JSON_DECLARE(AxisMessage)
RESECT_JSON_DECLARE(DatasetMessage)
RESECT_JSON_DECLARE(MeasureMessage)
RESECT_JSON_DECLARE(CostMessage)
RESECT_JSON_DECLARE(VerdictMessage)
RESECT_JSON_DECLARE(PlanProblemMessage)
RESECT_JSON_DECLARE(PlanCheckMessage)
RESECT_JSON_DECLARE(PreviewMessage)
RESECT_JSON_DECLARE(EstimateMessage)
RESECT_JSON_DECLARE(ExportMessage)

}  // namespace resect::protocol

#include "core/protocol/messages.h"

namespace resect::protocol {

RESECT_JSON_FIELDS(ProblemMessage, severity, subject, message, advice)
RESECT_JSON_FIELDS(HelloMessage, protocol, version, devices, torchVersion, threads)
RESECT_JSON_FIELDS(BlockMessage, index, parameters, attentionParameters, ffnParameters, hasAttention, hasFfn, numHeads,
                   numKvHeads, headDim, ffnSize, numExperts, headsPerKv, tower)
RESECT_JSON_FIELDS(TensorCountsMessage, known, expected, missing, misshapen, unexpected, ignored)
RESECT_JSON_FIELDS(ModelMessage, path, name, fingerprint, family, familyTitle, dtype, understood, tied, hasTokenizer,
                   parameters, bytes, numTensors, numShards, vocabSize, hiddenSize, maxPositions, input, embeddingParameters,
                   headParameters, finalNormParameters, linkParameters, licence, edits, blocks, problems, tensorCounts)
RESECT_JSON_FIELDS(DataMessage, file, rowLength, maxRows, layout, imageAspect)
RESECT_JSON_FIELDS(ParameterMessage, name, title, help, type, unit, defaultValue, minimum, maximum, choices, advanced)
RESECT_JSON_FIELDS(MethodMessage, id, title, summary, paper, families, measures, plans, trains, measureParameters, planParameters,
                   trainParameters)
RESECT_JSON_FIELDS(AxisMessage, name, component, ids)
RESECT_JSON_FIELDS(DatasetMessage, name, kind, title, unit, help, higher, axes, shape, samples, hasErrors, minimum, maximum)
RESECT_JSON_FIELDS(MeasureMessage, file, method, dataDescription, parameters, created, samplesDone, samplesTotal, cached,
                   datasets, notes)
RESECT_JSON_FIELDS(CostMessage, parameters, activeParameters, bytes, bytesF32, bytesBf16, kvBytesPer1000,
                   prefillFlopsPerToken, decodeFlopsPerToken)
RESECT_JSON_FIELDS(VerdictMessage, runtime, verdict, reasons, evidence)
RESECT_JSON_FIELDS(PlanProblemMessage, problem, edit, instead, insteadTitles)
RESECT_JSON_FIELDS(PlanCheckMessage, legal, problems, titles, hash, uniform, before, after, verdicts, blocks)
RESECT_JSON_FIELDS(PreviewMessage, unit, rowsDone, rowsTotal, perplexity, perplexityLow, perplexityHigh, baseline, baselineLow,
                   baselineHigh, kl, klLow, klHigh, accuracy, accuracyLow, accuracyHigh, baselineAccuracy, baselineAccuracyLow,
                   baselineAccuracyHigh, tokensPerSecond, baselineTokensPerSecond, final)
RESECT_JSON_FIELDS(EstimateMessage, memoryBytes, trainableParameters, steps, tokens, unit, seconds, basis, problems)
RESECT_JSON_FIELDS(ExportMessage, folder, way, bytes, files, verified, maxAbsLogitError, kl, tensorsCompared, maxTensorError, tokenizer, opensIn, loadCommands, problems)

}  // namespace resect::protocol

#pragma once
#include <string>

namespace resect {

inline constexpr const char* kVerifyScript = "verify_export.py";
inline constexpr const char* kVerifySample = "verify_export.json";  ///< {"input_ids", "top_ids" [T][K], "top_log_probabilities" [T][K]}

/// A small Python program for the user's own environment: opens the folder with transformers (or vLLM's offline engine), runs the ids of the sample
/// and compares log-probabilities with what Resect computed when it wrote the folder.
std::string verifyScript();

}  // namespace resect

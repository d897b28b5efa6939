#include "core/data/sentencepiece_model.h"

#include "core/base/error.h"

#include <dlfcn.h>

#include <filesystem>

namespace resect {

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr int kApart = RTLD_NOW | RTLD_LOCAL;  // the sanitizer refuses RTLD_DEEPBIND
#else
constexpr int kApart = RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND;  // its own protobuf first, whatever else is loaded
#endif

/// lib/resect/sentencepiece.so beside the library that holds this code.
std::filesystem::path modulePath() {
    Dl_info info{};
    dladdr(reinterpret_cast<const void*>(&modulePath), &info);
    return std::filesystem::absolute(info.dli_fname ? info.dli_fname : "").parent_path() / "resect/sentencepiece.so";
}

LoadSentencePiece* module() {
    static LoadSentencePiece* const entry = [] {
        void* handle = dlopen(modulePath().c_str(), kApart);
        return handle ? reinterpret_cast<LoadSentencePiece*>(dlsym(handle, "resectLoadSentencePiece")) : nullptr;
    }();
    return entry;
}

}  // namespace

std::unique_ptr<SentencePieceModel> SentencePieceModel::load(const std::string& bytes, const std::string& subject) {
    LoadSentencePiece* entry = module();
    if (!entry) throw Error(ErrorCode::Internal, subject, "needs " + modulePath().string() + ", which is missing or cannot be loaded");
    std::string error;
    std::unique_ptr<SentencePieceModel> model(entry(bytes, error));
    if (!model) throw Error(ErrorCode::BadInput, subject, "is no SentencePiece model: " + error);
    return model;
}

}  // namespace resect

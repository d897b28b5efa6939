#include "core/checkpoint/sha256.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint_writer.h"

#include <array>
#include <cerrno>
#include <fstream>
#include <openssl/evp.h>
#include <utility>

namespace resect {

namespace {
void require(int result) {
    if (result != 1) throw Error(ErrorCode::Internal, "SHA-256", "the crypto library refused");
}
}  // namespace

Sha256::Sha256() : m_context(EVP_MD_CTX_new()) {
    if (!m_context || EVP_DigestInit_ex(m_context, EVP_sha256(), nullptr) != 1) {
        EVP_MD_CTX_free(m_context);
        require(0);
    }
}
Sha256::Sha256(Sha256&& other) noexcept : m_context(std::exchange(other.m_context, nullptr)) {}
Sha256& Sha256::operator=(Sha256&& other) noexcept {
    std::swap(m_context, other.m_context);
    return *this;
}
Sha256::~Sha256() { EVP_MD_CTX_free(m_context); }

void Sha256::add(std::span<const std::byte> bytes) { require(EVP_DigestUpdate(m_context, bytes.data(), bytes.size())); }

std::string Sha256::hex() {
    std::array<unsigned char, 32> digest{};
    require(EVP_DigestFinal_ex(m_context, digest.data(), nullptr));
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    for (const unsigned char byte : digest) {
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

std::string sha256Hex(std::span<const std::byte> bytes) {
    Sha256 sha;
    sha.add(bytes);
    return sha.hex();
}

std::string sha256Hex(std::string_view text) { return sha256Hex(std::as_bytes(std::span(text))); }

std::string sha256File(const std::filesystem::path& path, const JobContext& job) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw systemError(errno ? errno : ENOENT, path, "cannot open");
    std::error_code unknown;
    const auto size = std::filesystem::file_size(path, unknown);
    const double total = unknown ? 0 : static_cast<double>(size);
    std::string buffer(4 << 20, '\0');
    Sha256 sha;
    double done = 0;
    while (file) {
        if (job.stopped()) throw Error(ErrorCode::Stopped, path.string(), "stopped while reading");
        file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
        sha.add(std::string_view(buffer).substr(0, static_cast<std::size_t>(file.gcount())));
        done += static_cast<double>(file.gcount());
        job.progress({done, total, "bytes", "hashing " + path.filename().string()});
    }
    if (file.bad()) throw systemError(EIO, path, "cannot read");
    return sha.hex();
}

}  // namespace resect

#pragma once
#include <map>
#include <string>
#include <vector>

namespace resect::test {

struct ProcessResult {
    int exitCode = -1;           ///< 128 + signal when it was killed
    std::string out, err;
};

/// Runs a program to its end with `input` on its standard input. `environment` is added to ours.
ProcessResult runProcess(const std::vector<std::string>& command, const std::string& input = {}, const std::map<std::string, std::string>& environment = {});

/// resect-cli with these arguments, its cache in a folder of this test process.
ProcessResult runCli(const std::vector<std::string>& arguments, const std::string& input = {});

}  // namespace resect::test

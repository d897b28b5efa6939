#include "tests/support/process.h"

#include "tests/support/test_data.h"

#include <array>
#include <cstdlib>
#include <poll.h>
#include <stdexcept>
#include <sys/wait.h>
#include <unistd.h>

namespace resect::test {

namespace {

void replaceBy(const std::vector<std::string>& command, const std::map<std::string, std::string>& environment) {
    for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> arguments;
    for (const auto& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
}

/// Reads both pipes until they close; a child that fills one while we wait for the other would hang.
void drain(int out, int err, ProcessResult& result) {
    std::array<pollfd, 2> pipes{{{out, POLLIN, 0}, {err, POLLIN, 0}}};
    std::array<char, 65536> buffer;
    for (int open = 2; open > 0;) {
        poll(pipes.data(), pipes.size(), -1);
        for (auto& pipe : pipes) {
            if (pipe.fd < 0 || pipe.revents == 0) continue;
            const ssize_t got = read(pipe.fd, buffer.data(), buffer.size());
            if (got > 0) {
                (pipe.fd == out ? result.out : result.err).append(buffer.data(), static_cast<std::size_t>(got));
            } else {
                close(pipe.fd);
                pipe.fd = -1;
                --open;
            }
        }
    }
}

}  // namespace

ProcessResult runProcess(const std::vector<std::string>& command, const std::string& input, const std::map<std::string, std::string>& environment) {
    int in[2], out[2], err[2];
    if (pipe(in) || pipe(out) || pipe(err)) throw std::runtime_error("no pipes");
    const pid_t child = fork();
    if (child < 0) throw std::runtime_error("no process");
    if (child == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        for (const int end : {in[0], in[1], out[0], out[1], err[0], err[1]}) close(end);
        replaceBy(command, environment);
    }
    for (const int end : {in[0], out[1], err[1]}) close(end);
    for (std::size_t done = 0; done < input.size();) {  // inputs of tests are far below the pipe's 64 KiB
        const ssize_t wrote = write(in[1], input.data() + done, input.size() - done);
        if (wrote <= 0) break;
        done += static_cast<std::size_t>(wrote);
    }
    close(in[1]);
    ProcessResult result;
    drain(out[0], err[0], result);
    int status = 0;
    waitpid(child, &status, 0);
    result.exitCode = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return result;
}

ProcessResult runCli(const std::vector<std::string>& arguments, const std::string& input) {
    static const TempFolder cache;
    std::vector<std::string> command{cliProgram().string()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return runProcess(command, input, {{"XDG_CACHE_HOME", cache.path().string()}});
}

}  // namespace resect::test

// SPDX-License-Identifier: MIT
// What main() of an example does besides its work: options, one line for an error, the exit status.
#pragma once

#include <nha/config.hpp>

#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

namespace examples_common {

/// Says what went wrong; returns the exit status for it.
inline int fail(const char* program, const std::string& what) {
  std::fflush(stdout);
  std::fprintf(stderr, "%s: %s\n", program, what.c_str());
  return 1;
}

/// Takes the arguments over with parse(arguments, options), which returns what is wrong with them,
/// and calls run(options), unless options.help asks for `usage`.
template <class Options, class Parse, class Run>
int run_program(const char* program, const char* usage, const std::vector<std::string>& arguments,
                Parse&& parse, Run&& run) {
  Options options;
  const std::string wrong = parse(arguments, options);
  if (!wrong.empty()) return fail(program, wrong + " (--help lists the options)");
  const auto work = [&] {
    if (options.help)
      std::fputs(usage, stdout);
    else
      run(options);
    const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
    return written ? 0 : fail(program, "cannot write the results");
  };
#if NHA_HAS_EXCEPTIONS
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return fail(program, "not enough memory");
  } catch (const std::exception& error) {
    return fail(program, error.what());
  }
#else
  return work();
#endif
}

}  // namespace examples_common

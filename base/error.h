#pragma once
// The exceptions for what can happen: a peer dies, a setting is wrong, a file is damaged, a disk is
// full. Each carries one sentence that names the file, key, line or rank concerned and, where it
// helps, what to do. Bugs use check().

#include <stdexcept>
#include <string>

namespace cartesian {

/// Base of every recoverable error; `what()` is one sentence for the user.
class Error : public std::runtime_error {
 public:
  /// `on_every_rank`: every rank of the job throws this same error now, so none needs to be told.
  explicit Error(const std::string& what, bool on_every_rank = false)
      : std::runtime_error(what), on_every_rank_(on_every_rank) {}

  bool on_every_rank() const { return on_every_rank_; }

 private:
  bool on_every_rank_;
};

/// A setting, flag or combination of sizes that cannot work. Names the key.
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// A file whose contents are not what its format promises. Names the file and the place in it.
class FormatError : public Error {
 public:
  using Error::Error;
};

/// The operating system refused a file operation. Names the file and the system's reason.
class FileError : public Error {
 public:
  using Error::Error;
};

/// A peer failed or did not answer within the deadline. Names this rank, the peer, the phase and
/// the layer.
class CommError : public Error {
 public:
  using Error::Error;
};

/// Training cannot go on: a loss or gradient that is not finite. Names the step.
class NumericError : public Error {
 public:
  using Error::Error;
};

}  // namespace cartesian

#pragma once
// Scalars of a run as a TensorBoard event file, written by hand because its format is small:
//
//   file    one record after another
//   record  length u64, masked CRC-32C of the length u32, data, masked CRC-32C of the data u32
//           (TFRecord; little-endian)
//   data    protobuf Event: 1 wall_time double, 2 step varint, 3 file_version string, 5 summary
//           Summary: repeated 1 value;  Value: 1 tag string, 2 simple_value float
//
// The first record's Event has file_version "brain.Event:2".

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/report/run_data.h"

namespace cartesian {

/// CRC-32C (Castagnoli) of bytes.
std::uint32_t crc32c(std::string_view bytes);

/// One event a step and a validation; tags are the keys of metrics.jsonl, with "phase_s/experts"
/// for a number inside an object. Wall time is that of the first start plus the steps' own.
std::string make_event_file(const RunData& run);

}  // namespace cartesian

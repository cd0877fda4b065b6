#include "scheduler/control_messages.h"

#include <algorithm>

namespace cartesian {

namespace {

constexpr std::size_t kMaxHost = 255;
constexpr std::size_t kMaxReason = 1024;

std::string_view as_text(const Nonce& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string encode_bytes(const Nonce& bytes) { return std::string(as_text(bytes)); }

Nonce get_bytes(WireReader& reader, std::string_view field) {
  Nonce bytes;
  std::ranges::copy(reader.get_bytes(field, bytes.size()), bytes.begin());
  return bytes;
}

Nonce decode_bytes(std::string_view message, std::string_view payload) {
  WireReader reader(message, payload);
  const Nonce bytes = get_bytes(reader, "the only field");
  reader.end();
  return bytes;
}

std::string shortened(const std::string& text, std::size_t limit) { return text.substr(0, limit); }

}  // namespace

std::string Hello::encode() const {
  WireWriter writer;
  writer.put(version);
  writer.put(rank);
  writer.put(ranks);
  writer.put(instance);
  writer.put(pid);
  writer.put_text(shortened(host, kMaxHost));
  writer.put_bytes(as_text(nonce));
  return writer.take();
}

Hello Hello::decode(std::string_view payload) {
  WireReader reader("hello", payload);
  Hello hello;
  hello.version = reader.get<std::uint8_t>("version");
  if (hello.version != kProtocolVersion) {
    return hello;
  }
  hello.rank = reader.get<std::int32_t>("rank");
  hello.ranks = reader.get<std::int32_t>("ranks");
  hello.instance = reader.get<std::uint64_t>("instance");
  hello.pid = reader.get<std::int64_t>("pid");
  hello.host = reader.get_text("host", kMaxHost);
  hello.nonce = get_bytes(reader, "nonce");
  reader.end();
  return hello;
}

std::string Challenge::encode() const { return encode_bytes(nonce); }
Challenge Challenge::decode(std::string_view payload) {
  return {decode_bytes("challenge", payload)};
}

std::string Proof::encode() const { return encode_bytes(proof); }
Proof Proof::decode(std::string_view payload) { return {decode_bytes("proof", payload)}; }

std::string Welcome::encode() const { return encode_bytes(proof); }
Welcome Welcome::decode(std::string_view payload) { return {decode_bytes("welcome", payload)}; }

std::string Refused::encode() const {
  WireWriter writer;
  writer.put_text(shortened(reason, kMaxReason));
  return writer.take();
}

Refused Refused::decode(std::string_view payload) {
  WireReader reader("refused", payload);
  Refused refused{reader.get_text("reason", kMaxReason)};
  reader.end();
  return refused;
}

std::string Heartbeat::encode() const {
  WireWriter writer;
  writer.put(step);
  return writer.take();
}

Heartbeat Heartbeat::decode(std::string_view payload) {
  WireReader reader("heartbeat", payload);
  const Heartbeat heartbeat{reader.get<std::int64_t>("step")};
  if (heartbeat.step < -1 || heartbeat.step > kMostCount) {
    reader.fail("step", "is no step");
  }
  reader.end();
  return heartbeat;
}

std::string Command::encode() const {
  WireWriter writer;
  writer.put(id);
  writer.put(at_step);
  writer.put_text(kind);
  writer.put_text(payload);
  return writer.take();
}

Command Command::decode(std::string_view bytes) {
  WireReader reader("command", bytes);
  Command command;
  command.id = reader.get<std::uint64_t>("id");
  command.at_step = reader.get<std::int64_t>("at_step");
  if (command.at_step < 0) {
    reader.fail("at_step", "is negative");
  }
  command.kind = reader.get_text("kind", kMaxKind);
  command.payload = reader.get_blob("payload", kMaxPayload);
  reader.end();
  return command;
}

std::string Ack::encode() const {
  WireWriter writer;
  writer.put(id);
  writer.put(static_cast<std::uint8_t>(in_time ? 1 : 0));
  return writer.take();
}

Ack Ack::decode(std::string_view payload) {
  WireReader reader("ack", payload);
  Ack ack;
  ack.id = reader.get<std::uint64_t>("id");
  const auto in_time = reader.get<std::uint8_t>("in_time");
  if (in_time > 1) {
    reader.fail("in_time", "is neither 0 nor 1");
  }
  ack.in_time = in_time == 1;
  reader.end();
  return ack;
}

std::string Goodbye::encode() const {
  WireWriter writer;
  writer.put(exit_code);
  writer.put_text(shortened(reason, kMaxReason));
  return writer.take();
}

Goodbye Goodbye::decode(std::string_view payload) {
  WireReader reader("goodbye", payload);
  Goodbye goodbye;
  goodbye.exit_code = reader.get<std::int32_t>("exit_code");
  goodbye.reason = reader.get_text("reason", kMaxReason);
  reader.end();
  return goodbye;
}

}  // namespace cartesian

// SPDX-License-Identifier: Apache-2.0
#include "workloads/request_stream.hpp"

#include <gtest/gtest.h>

#include "tests/support/bad_input.hpp"
#include "workloads/trace.hpp"

namespace dssim {
namespace {

using test::bad_input_of;
using test::ScratchFolder;

std::unique_ptr<RequestStream> open(const std::string& workload, uint64_t seed = 1,
                                    const std::filesystem::path& folder = ".") {
  const Config file = Config::parse("[workload]\n" + workload, "s.toml");
  auto stream = make_request_stream(file.table("workload"), seed, folder);
  file.finish();
  return stream;
}

std::vector<Request> all(RequestStream& stream) {
  std::vector<Request> requests;
  Request r;
  while (stream.next(r)) requests.push_back(r);
  EXPECT_TRUE(stream.exhausted());
  EXPECT_FALSE(stream.next(r));
  return requests;
}
std::vector<Request> all(const std::string& workload, uint64_t seed = 1, const std::filesystem::path& folder = ".") {
  return all(*open(workload, seed, folder));
}

const std::string kLengths = "prompt = { tokens = 100 }\noutput = { tokens = 20 }\n";

TEST(RequestStream, ConstantArrivalsAreEvenlySpaced) {
  const auto requests = all("kind = \"constant\"\nrate = \"4/s\"\nrequests = 9\n" + kLengths);
  ASSERT_EQ(requests.size(), 9u);
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_EQ(requests[i].id, i);
    EXPECT_EQ(requests[i].arrival_s, 0.25 * static_cast<double>(i));
    EXPECT_EQ(requests[i].input_tokens, 100);
    EXPECT_EQ(requests[i].output_tokens, 20);
  }
  EXPECT_EQ(all("kind = \"constant\"\nrate = \"4/s\"\nduration = \"10 s\"\n" + kLengths).size(), 40u);
  // Whichever comes first.
  EXPECT_EQ(all("kind = \"constant\"\nrate = \"4/s\"\nduration = \"10 s\"\nrequests = 5\n" + kLengths).size(), 5u);
  EXPECT_EQ(all("kind = \"constant\"\nrate = \"4/s\"\nduration = \"1 s\"\nrequests = 5\n" + kLengths).size(), 4u);
}

TEST(RequestStream, TraceIsReplayedWholeByDefault) {
  const auto requests = all("kind = \"trace\"\ntrace = \"azure-2023-conv\"\n");
  ASSERT_EQ(requests.size(), 19366u);
  EXPECT_EQ(requests[0].arrival_s, 0);
  EXPECT_EQ(requests[0].input_tokens, 374);
  EXPECT_EQ(requests[0].output_tokens, 44);
  EXPECT_DOUBLE_EQ(requests[1].arrival_s, 4.314579);  // 18:15:50.9951690 − 18:15:46.6805900
  EXPECT_DOUBLE_EQ(requests.back().arrival_s, 3501.721937);
}

TEST(RequestStream, RescaledTraceHasTheRateAskedFor) {
  for (const char* name : {"azure-2023-conv", "azure-2023-code", "mooncake-conversation"}) {
    const auto requests = all(std::string("kind = \"trace\"\ntrace = \"") + name + "\"\nrate = \"4/s\"\n");
    EXPECT_NEAR(static_cast<double>(requests.size() - 1) / (requests.back().arrival_s - requests.front().arrival_s),
                4.0, 1e-12)
        << name;
  }
  // The scale is the whole trace's, so the first requests are the same ones at the same times.
  const auto whole = all("kind = \"trace\"\ntrace = \"azure-2023-conv\"\nrate = \"4/s\"\n");
  const auto first = all("kind = \"trace\"\ntrace = \"azure-2023-conv\"\nrate = \"4/s\"\nrequests = 1000\n");
  ASSERT_EQ(first.size(), 1000u);
  for (size_t i = 0; i < 1000; ++i) EXPECT_EQ(first[i].arrival_s, whole[i].arrival_s);
}

TEST(RequestStream, CsvIsSortedRescaledAndCut) {
  const ScratchFolder folder;
  folder.write("t.csv", "arrival,input,output\n3,30,3\n1,10,1\n2,20,2\n");
  const std::string csv = "kind = \"csv\"\nfile = \"t.csv\"\n";
  const auto plain = all(csv, 1, folder.path());
  ASSERT_EQ(plain.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(plain[i].arrival_s, static_cast<double>(i + 1));
    EXPECT_EQ(plain[i].input_tokens, static_cast<int64_t>(10 * (i + 1)));
  }
  const auto faster = all(csv + "rate = \"2/s\"\n", 1, folder.path());
  EXPECT_EQ(faster[2].arrival_s - faster[0].arrival_s, 1.0);
  EXPECT_EQ(all(csv + "duration = \"2.5 s\"\n", 1, folder.path()).size(), 2u);
  EXPECT_EQ(all(csv + "requests = 1\n", 1, folder.path()).size(), 1u);
}

// A trace's arrivals with lengths of one's own, or with a system prompt before its prompts.
TEST(RequestStream, LengthsAndPrefixesCanReplaceTheTraces) {
  const auto lengths =
      all("kind = \"trace\"\ntrace = \"mooncake-conversation\"\nrequests = 50\nprompt = { tokens = 64 }\n");
  EXPECT_EQ(lengths[7].input_tokens, 64);
  EXPECT_EQ(lengths[2].output_tokens, 794);  // the trace's own
  EXPECT_EQ(lengths[7].prompt.trace_block_tokens, 0);
  const auto shared =
      all("kind = \"trace\"\ntrace = \"azure-2023-conv\"\nrequests = 50\nprompt = { shared_prefix = 100 }\n");
  EXPECT_EQ(shared[0].input_tokens, 374);
  EXPECT_EQ(shared[0].prompt.prefix_tokens, 100);
  EXPECT_EQ(shared[3].prompt.prefix_tokens, 91);  // a prompt of 91 tokens is all prefix
}

TEST(RequestStream, MooncakePromptsShareBlocks) {
  const auto stream = open("kind = \"trace\"\ntrace = \"mooncake-conversation\"\nrequests = 2\n");
  Request a, b;
  ASSERT_TRUE(stream->next(a));
  ASSERT_TRUE(stream->next(b));
  std::vector<uint64_t> ha, hb;
  append_block_hashes(a, 16, ha);
  append_block_hashes(b, 16, hb);
  EXPECT_TRUE(std::equal(ha.begin(), ha.begin() + 32, hb.begin()));  // both begin with block 0 of 512
  EXPECT_NE(ha[32], hb[32]);
}

TEST(RequestStream, ClosedLoopAsksAgainWhenAnswered) {
  const auto stream = open("kind = \"closed-loop\"\nusers = 2\nthink_time = \"3 s\"\nrequests = 5\n" + kLengths);
  Request r;
  for (uint64_t id = 0; id < 2; ++id) {
    ASSERT_TRUE(stream->next(r));
    EXPECT_EQ(r.id, id);
    EXPECT_EQ(r.arrival_s, 0);
  }
  EXPECT_FALSE(stream->next(r));
  EXPECT_FALSE(stream->exhausted());
  stream->completed(1, 10);
  stream->completed(0, 11);
  ASSERT_TRUE(stream->next(r));
  EXPECT_EQ(r.arrival_s, 13);
  ASSERT_TRUE(stream->next(r));
  EXPECT_EQ(r.arrival_s, 14);
  EXPECT_FALSE(stream->next(r));
  stream->completed(2, 20);
  ASSERT_TRUE(stream->next(r));
  EXPECT_EQ(r.id, 4u);
  EXPECT_TRUE(stream->exhausted());
  stream->completed(3, 21);
  EXPECT_FALSE(stream->next(r));
}

TEST(RequestStream, ClosedLoopEndsAtItsDuration) {
  const auto stream = open("kind = \"closed-loop\"\nusers = 1\nduration = \"10 s\"\n" + kLengths);
  Request r;
  double now_s = 0;
  int count = 0;
  while (stream->next(r)) {
    EXPECT_EQ(r.arrival_s, now_s);
    now_s += 4;
    ++count;
    stream->completed(r.id, now_s);
  }
  EXPECT_EQ(count, 3);  // at 0, 4 and 8 s
  EXPECT_TRUE(stream->exhausted());

  // Thinking past the end counts as leaving.
  const auto thinker =
      open("kind = \"closed-loop\"\nusers = 1\nduration = \"10 s\"\nthink_time = \"6 s\"\n" + kLengths);
  ASSERT_TRUE(thinker->next(r));
  thinker->completed(r.id, 4);
  EXPECT_FALSE(thinker->next(r));
  EXPECT_TRUE(thinker->exhausted());
}

TEST(RequestStream, UsersOfAClosedLoopStartOverTheRampUp) {
  const auto stream = open("kind = \"closed-loop\"\nusers = 4\nramp_up = \"10 s\"\nrequests = 9\n" + kLengths);
  Request r;
  for (const double at : {0.0, 2.5, 5.0, 7.5}) {
    ASSERT_TRUE(stream->next(r));
    EXPECT_EQ(r.arrival_s, at);
  }
  EXPECT_FALSE(stream->next(r));
  // Who would start after the end never does.
  const auto cut = open("kind = \"closed-loop\"\nusers = 4\nramp_up = \"10 s\"\nduration = \"6 s\"\n" + kLengths);
  int started = 0;
  while (cut->next(r)) ++started;
  EXPECT_EQ(started, 3);
}

// The second user is expected at 5 s, but the first is answered at 1 s and asks again at once.
TEST(RequestStream, AnAnswerMayBringTheExpectedRequestForward) {
  const auto stream = open("kind = \"closed-loop\"\nusers = 2\nramp_up = \"10 s\"\nrequests = 9\n" + kLengths);
  Request first, expected;
  ASSERT_TRUE(stream->next(first));
  ASSERT_TRUE(stream->next(expected));
  EXPECT_EQ(expected.arrival_s, 5);
  EXPECT_FALSE(stream->bring_forward(expected));
  stream->completed(first.id, 1);
  EXPECT_TRUE(stream->bring_forward(expected));
  EXPECT_EQ(expected.arrival_s, 1);
  EXPECT_EQ(expected.id, 1u);
  ASSERT_TRUE(stream->next(expected));
  EXPECT_EQ(expected.arrival_s, 5);
}

TEST(RequestStream, ThinkTimesMayBeExponential) {
  const auto stream = open(
      "kind = \"closed-loop\"\nusers = 1\nthink_time = { exponential = \"3 s\" }\n"
      "requests = 40001\n" +
      kLengths);
  Request r;
  ASSERT_TRUE(stream->next(r));
  double sum = 0, sum_of_squares = 0, answered_s = 0;
  for (int i = 0; i < 40000; ++i) {
    answered_s = r.arrival_s + 1;
    stream->completed(r.id, answered_s);
    ASSERT_TRUE(stream->next(r));
    sum += r.arrival_s - answered_s;
    sum_of_squares += (r.arrival_s - answered_s) * (r.arrival_s - answered_s);
  }
  // Mean 3 and second moment 18, within four standard errors (3 / √n, and √(24 − 4) × 9 / √n).
  EXPECT_NEAR(sum / 40000, 3, 4 * 3 / 200.0);
  EXPECT_NEAR(sum_of_squares / 40000, 18, 4 * std::sqrt(20.0) * 9 / 200);
}

TEST(RequestStream, UniformLengthsTakeEveryValueAlike) {
  const auto requests =
      all("kind = \"constant\"\nrate = \"1/s\"\nrequests = 40000\n"
          "prompt = { tokens = { uniform = { min = 81, max = 100 } } }\noutput = { tokens = 9 }\n",
          7);
  std::map<int64_t, int> counts;
  for (const Request& r : requests) ++counts[r.input_tokens];
  ASSERT_EQ(counts.size(), 20u);
  EXPECT_EQ(counts.begin()->first, 81);
  EXPECT_EQ(counts.rbegin()->first, 100);
  double chi_square = 0;
  for (const auto& [tokens, count] : counts) chi_square += (count - 2000.0) * (count - 2000.0) / 2000;
  EXPECT_LT(chi_square, 43.8);  // 19 degrees of freedom, one in a thousand
}

TEST(RequestStream, SameSeedSameRequestsAndOtherSeedOthers) {
  const std::string gamma =
      "kind = \"gamma\"\nrate = \"4/s\"\nburstiness = 0.5\nrequests = 100\n"
      "prompt = { tokens = { lognormal = { median = 400, sigma = 1.0, max = 4096 } } }\noutput = { tokens = 9 }\n";
  const auto a = all(gamma, 7), b = all(gamma, 7), c = all(gamma, 8);
  EXPECT_EQ(a[99].arrival_s, b[99].arrival_s);
  EXPECT_EQ(a[99].input_tokens, b[99].input_tokens);
  EXPECT_NE(a[99].arrival_s, c[99].arrival_s);
}

TEST(RequestStream, ExpectationsAreKnownBeforehand) {
  EXPECT_EQ(open("kind = \"trace\"\ntrace = \"azure-2023-conv\"\n")->expected_requests(), 19366u);
  EXPECT_EQ(open("kind = \"poisson\"\nrate = \"1/s\"\nrequests = 7\n" + kLengths)->expected_requests(), 7u);
  const auto timed = open("kind = \"poisson\"\nrate = \"1/s\"\nduration = \"2 min\"\n" + kLengths);
  EXPECT_FALSE(timed->expected_requests().has_value());
  EXPECT_EQ(timed->expected_duration_s(), 120);
}

TEST(RequestStream, BadWorkloadsNameTheKey) {
  const ScratchFolder folder;
  folder.write("t.csv", "arrival,input,output\n1,10,1\n1,20,2\n");
  const auto message = [&](const std::string& workload) {
    return bad_input_of([&] { open(workload, 1, folder.path()); });
  };
  EXPECT_EQ(message("kind = \"poison\"\n"), "s.toml:2: workload.kind: unknown value 'poison'; did you mean 'poisson'?");
  EXPECT_NE(message("rate = \"4/s\"\n").find("workload.kind: is missing"), std::string::npos);
  EXPECT_EQ(message("kind = \"trace\"\ntrace = \"azure-2023-cov\"\n"),
            "s.toml:3: workload.trace: unknown trace 'azure-2023-cov'; did you mean 'azure-2023-conv'?");
  EXPECT_EQ(message("kind = \"trace\"\ntrace = \"azure-2023-conv\"\nrequests = 20000\n"),
            "s.toml:4: workload.requests: 20000 asked, but the trace has 19366");
  EXPECT_NE(message("kind = \"trace\"\ntrace = \"azure-2023-conv\"\nrate = \"0/s\"\n")
                .find("workload.rate: must lie between"),
            std::string::npos);
  EXPECT_NE(message("kind = \"trace\"\ntrace = \"azure-2023-conv\"\nburstiness = 2\n").find("workload.burstiness"),
            std::string::npos);
  EXPECT_NE(message("kind = \"trace\"\ntrace = \"azure-2023-conv\"\nprompt = { distinct = 2 }\n")
                .find("distinct: needs tokens"),
            std::string::npos);
  EXPECT_NE(
      message("kind = \"trace\"\ntrace = \"azure-2023-conv\"\noutput = { token = 2 }\n").find("did you mean 'tokens'"),
      std::string::npos);
  EXPECT_NE(message("kind = \"csv\"\nfile = \"u.csv\"\n").find("s.toml:3: workload.file: "), std::string::npos);
  EXPECT_NE(message("kind = \"csv\"\nfile = \"t.csv\"\nrate = \"2/s\"\n").find("all arrive at once"),
            std::string::npos);
  EXPECT_NE(message("kind = \"csv\"\nfile = \"t.csv\"\nrequests = 3\n").find("3 asked, but the trace has 2"),
            std::string::npos);
  EXPECT_NE(message("kind = \"poisson\"\nrate = \"4/s\"\n" + kLengths).find("workload.requests: is missing"),
            std::string::npos);
  EXPECT_NE(message("kind = \"poisson\"\nrequests = 4\n" + kLengths).find("workload.rate: is missing"),
            std::string::npos);
  EXPECT_NE(
      message("kind = \"poisson\"\nrate = 4\nrequests = 4\n" + kLengths).find("workload.rate: the unit is missing"),
      std::string::npos);
  EXPECT_NE(
      message("kind = \"poisson\"\nrate = \"4/s\"\nrequests = 0\n" + kLengths).find("workload.requests: 0 is outside"),
      std::string::npos);
  EXPECT_NE(message("kind = \"poisson\"\nrate = \"4/s\"\nduration = \"0 s\"\n" + kLengths).find("longer than nothing"),
            std::string::npos);
  EXPECT_NE(
      message("kind = \"poisson\"\nrate = \"4/s\"\nrequests = 4\noutput = { tokens = 2 }\n").find("workload.prompt"),
      std::string::npos);
  EXPECT_NE(message("kind = \"gamma\"\nrate = \"4/s\"\nrequests = 4\nburstiness = 0\n" + kLengths)
                .find("workload.burstiness: 0 is outside"),
            std::string::npos);
  EXPECT_NE(message("kind = \"closed-loop\"\nusers = 1\nthink_time = \"-1 s\"\nrequests = 4\n" + kLengths)
                .find("workload.think_time"),
            std::string::npos);
  EXPECT_NE(message("kind = \"closed-loop\"\nusers = 1\nramp_up = \"-1 s\"\nrequests = 4\n" + kLengths)
                .find("workload.ramp_up"),
            std::string::npos);
  EXPECT_NE(
      message("kind = \"closed-loop\"\nusers = -1\nrequests = 4\n" + kLengths).find("workload.users: -1 is outside"),
      std::string::npos);
}

}  // namespace
}  // namespace dssim

// SPDX-License-Identifier: Apache-2.0
// dssim-calibrate: measures this machine's GPU and writes a profile that dssim uses.
#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <sstream>

#ifdef DSSIM_ENGINE
#include "kernels/cuda/engine/replay.hpp"
#endif
#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/gpu.hpp"
#include "kernels/cuda/ops/attention.hpp"
#include "kernels/cuda/ops/status.hpp"
#ifdef DSSIM_REPORT
#include "kernels/profile_report.hpp"
#endif

namespace {

namespace po = boost::program_options;
using namespace dssim::cuda;

struct Benchmark {
  const char* table;
  void (*measure)(Bench&);
};

// Short ones first: a wrong or slow kernel shows before the long tables are measured.
constexpr Benchmark kBenchmarks[] = {{"quality", report_kernel_quality},
                                     {"launch", measure_launch},
                                     {"copy", measure_copy},
                                     {"elementwise", measure_elementwise},
                                     {"attention", measure_attention},
                                     {"moe", measure_moe},
                                     {"gemm", measure_gemm},
                                     {"nccl", measure_nccl},
                                     {"power", measure_power},
                                     {"storage", measure_storage}};

struct Options {
  std::filesystem::path out;
  std::filesystem::path scratch;
  std::filesystem::path report;
  std::vector<std::string> tables;
  int device = 0;
  double precision = 0.005;
  bool quick = false;
  bool resume = false;
  bool verify_only = false;
  bool skip_verify = false;
};

std::string table_names() {
  std::string names;
  for (const Benchmark& b : kBenchmarks) names += (names.empty() ? "" : ",") + std::string(b.table);
  return names;
}

bool known_table(const std::string& name) {
  return std::any_of(std::begin(kBenchmarks), std::end(kBenchmarks),
                     [&](const Benchmark& b) { return name == b.table; });
}

// Empty when only the help was asked for.
std::vector<Options> parse(int argc, char** argv) {
  Options o;
  std::string tables;
  po::options_description description("dssim-calibrate: measure this machine's GPU and write a profile for dssim");
  auto add = description.add_options();
  add("help,h", "print this");
  add("out,o", po::value(&o.out), "profile folder (default: kernels/profiles/<gpu>/dssim-1)");
  add("quick", po::bool_switch(&o.quick), "coarse grid, under a minute");
  add("tables", po::value(&tables),
      ("measure only these, into a new or an existing profile: " + table_names()).c_str());
  add("resume", po::bool_switch(&o.resume), "take up an interrupted run: its finished tables are kept");
  add("verify", po::bool_switch(&o.verify_only), "check the kernels against float64 and stop");
  add("skip-verify", po::bool_switch(&o.skip_verify), "do not check the kernels first");
  add("report", po::value(&o.report)->value_name("DIR"), "report on the profile in DIR and stop; needs no GPU");
  add("device", po::value(&o.device), "GPU to measure (default 0); collectives use all");
  add("precision", po::value(&o.precision), "relative standard error to reach (default 0.005)");
  add("scratch", po::value(&o.scratch), "folder for the storage benchmark's file (default: the profile's)");
  po::variables_map values;
  po::store(po::parse_command_line(argc, argv, description), values);
  po::notify(values);
  if (values.count("help") > 0) {
    std::cout << description;
    return {};
  }
  std::stringstream list(tables);
  for (std::string name; std::getline(list, name, ',');) {
    if (!known_table(name)) throw po::error("--tables: " + name + " is not one of " + table_names());
    o.tables.push_back(name);
  }
  if (!(o.precision > 0.0 && o.precision < 1.0)) throw po::error("--precision: must lie between 0 and 1");
  return {o};
}

std::string text_value(const std::string& text) {
  return "\"" + text + "\"";
}

std::string today() {
  char date[32] = {};
  std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
  return date;
}

std::string rate(double value, const char* unit) {
  char text[48];
  std::snprintf(text, sizeof text, "\"%.6g %s\"", value, unit);
  return text;
}

Profile::Description describe(const GpuInfo& gpu, const Nvml& nvml, const Options& options) {
  std::string date = today();
  std::size_t cublas = cublasLtGetVersion();
  std::string cublas_name =
      std::to_string(cublas / 10000) + "." + std::to_string(cublas / 100 % 100) + "." + std::to_string(cublas % 100);
  std::string driver = nvml.driver_version();
  std::string nccl = nccl_version();

  Profile::Description d;
  d.stack_head = {"title = " + text_value("dssim-1 on " + gpu.name),
                  "source = " + text_value("measured by dssim-calibrate, " + date + ": driver " + driver + ", CUDA " +
                                           cuda_version_name(CUDART_VERSION) + ", cuBLAS " + cublas_name +
                                           (nccl.empty() ? "" : ", NCCL " + nccl))};
  d.stack_body = {"", "[measured_on]", "architecture = " + text_value(gpu.architecture),
                  "bf16 = " + rate(gpu.bf16_tflops, "TFLOPS")};
  if (gpu.fp8_tflops > 0) d.stack_body.push_back("fp8 = " + rate(gpu.fp8_tflops, "TFLOPS"));
  d.stack_body.push_back("memory_bandwidth = " + rate(gpu.memory_gb_per_s, "GB/s"));
  d.stack_body.push_back("l2 = " + rate(static_cast<double>(gpu.l2_bytes) / (1 << 20), "MiB"));
  if (gpu.nvlink_gb_per_s > 0) d.stack_body.push_back("nvlink = " + rate(gpu.nvlink_gb_per_s, "GB/s"));
  d.stack_body.push_back("sms = " + std::to_string(gpu.processors));
  d.stack_body.push_back("rope_writes_kv = true");
  d.stack_body.push_back("prefill_blocks_per_sm = " + std::to_string(prefill_blocks_per_processor()));
  d.stack_body.push_back("decode_blocks_per_sm = " + std::to_string(decode_blocks_per_processor()));
  std::string sizes = "1, 2, 4";
  for (int batch = 8; batch <= 256; batch += 8) sizes += ", " + std::to_string(batch);
  for (const std::string& line :
       {std::string(), std::string("[memory]"),
        "context = " + rate(static_cast<double>(gpu.context_bytes >> 20), "MiB"), std::string(),
        std::string("[engine]"), "graph_batch_sizes = [" + sizes + "]", std::string("attention = \"flash-3\"")}) {
    d.stack_body.push_back(line);
  }

  d.calibration = {
      "# How the tables beside this file were measured. Written by dssim-calibrate.",
      "[measured]",
      "date = " + text_value(date),
      "device = " + text_value(gpu.name),
      "gpus = " + std::to_string(gpu.count),
      "compute_capability = " + text_value(std::to_string(gpu.major) + "." + std::to_string(gpu.minor)),
      "multiprocessors = " + std::to_string(gpu.processors),
      "memory_bytes = " + std::to_string(gpu.memory_bytes),
      "l2_bytes = " + std::to_string(gpu.l2_bytes),
      "driver = " + text_value(driver),
      "cuda_driver = " + text_value(cuda_version_name(gpu.driver)),
      "cuda_runtime = " + text_value(cuda_version_name(CUDART_VERSION)),
      "cublas = " + text_value(cublas_name),
      "grid = " + text_value(options.quick ? "quick" : "full"),
      "precision = " + std::to_string(options.precision),
      "power_limit_w = " + std::to_string(static_cast<int>(nvml.power_limit_w())),
      "max_sm_clock_mhz = " + std::to_string(nvml.max_sm_clock_mhz()),
  };
  if (!nccl.empty()) d.calibration.push_back("nccl = " + text_value(nccl));
  return d;
}

// What the meter saw while a table was measured.
std::vector<std::string> statistics(const Meter& meter, double seconds) {
  const MeterStatistics& s = meter.statistics();
  std::vector<std::string> lines = {"date = " + text_value(today()),
                                    "seconds_spent = " + std::to_string(static_cast<int>(seconds + 0.5)),
                                    "readings = " + std::to_string(s.readings),
                                    "dropped_throttled = " + std::to_string(s.dropped),
                                    "retried_throttled = " + std::to_string(s.retried),
                                    "at_power_cap = " + std::to_string(s.power_capped)};
  if (!s.sm_clocks_mhz.empty()) {
    std::vector<unsigned> clocks = s.sm_clocks_mhz;
    std::sort(clocks.begin(), clocks.end());
    lines.push_back("sm_clock_mhz = { min = " + std::to_string(clocks.front()) + ", median = " +
                    std::to_string(clocks[clocks.size() / 2]) + ", max = " + std::to_string(clocks.back()) + " }");
  }
  return lines;
}

// How well the profile predicts, printed and kept beside its tables.
void report_on(const std::filesystem::path& folder) {
#ifdef DSSIM_REPORT
  dssim::ProfileReport report = dssim::report_on_profile(folder);
  dssim::write_profile_report(folder, report);
  std::printf("%s", dssim::profile_report_text(report).c_str());
#else
  std::printf(
      "this build of dssim-calibrate cannot report how well the profile predicts (it was built without Eigen, fmt, "
      "toml++ and zlib): dssim catalogue stacks %s\n",
      folder.c_str());
#endif
}

int calibrate(Options options) {
  if (!options.report.empty()) {
    report_on(options.report);
    return 0;
  }
  GpuInfo gpu = find_gpu(options.device);
  Nvml nvml(options.device);
  if (!nvml.available()) std::fprintf(stderr, "note: no NVML: clocks and throttling are not watched\n");
  std::printf("%s, %d multiprocessors, driver %s\n", gpu.name.c_str(), gpu.processors, nvml.driver_version().c_str());
  if (!options.skip_verify) {
    std::printf("kernels against float64:\n");
    if (!verify_kernels(gpu)) throw DeviceError("a kernel computes wrong results on this GPU: nothing was measured");
#ifdef DSSIM_ENGINE
    if (options.verify_only && !verify_engine(1)) throw DeviceError("the engine computes wrong results on this GPU");
    if (options.verify_only && gpu.count > 1 && !verify_engine(2))
      throw DeviceError("the engine computes wrong results on two GPUs");
#endif
  }
  if (options.verify_only) return 0;

  if (options.out.empty()) options.out = std::filesystem::path("kernels/profiles") / gpu.profile_folder / "dssim-1";
  Profile profile(options.out, options.tables, options.resume);
  if (options.scratch.empty()) options.scratch = profile.working_folder();
  profile.describe(describe(gpu, nvml, options));
  double sample_seconds = options.quick ? 1e-4 : 3e-4;
  Meter meter(nvml, options.quick ? std::max(options.precision, 0.01) : options.precision, sample_seconds);
  for (const Benchmark& benchmark : kBenchmarks) {
    bool wanted =
        options.tables.empty() || std::count(options.tables.begin(), options.tables.end(), benchmark.table) > 0;
    if (!wanted || profile.has(benchmark.table)) continue;
    double before = now_seconds();
    std::printf("%s ...\n", benchmark.table);
    std::fflush(stdout);
    meter.reset_statistics();
    Bench bench{gpu, nvml, meter, profile, options.quick, options.scratch, {}};
    try {
      benchmark.measure(bench);
    } catch (const Unavailable& e) {
      std::fprintf(stderr, "note: %s: table left out\n", e.what());
      continue;
    }
    double seconds = now_seconds() - before;
    if (profile.has(benchmark.table)) profile.note(benchmark.table, statistics(meter, seconds));
    std::printf("%s: %.1f s\n", benchmark.table, seconds);
    std::fflush(stdout);
  }
  profile.complete();
  std::printf("profile: %s\n", profile.folder().c_str());
  report_on(profile.folder());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc > 1 && std::string(argv[1]) == "replay") {
#ifdef DSSIM_ENGINE
      return replay_command(argc - 1, argv + 1);
#else
      throw po::error("replay is left out of this build: build dssim itself with its preset cuda");
#endif
    }
    for (const Options& options : parse(argc, argv)) return calibrate(options);
    return 0;
  } catch (const po::error& e) {
    std::fprintf(stderr, "dssim-calibrate: %s\n", e.what());
    return 2;
  } catch (const Unavailable& e) {
    std::fprintf(stderr, "dssim-calibrate: %s\n", e.what());
    return 3;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "dssim-calibrate: %s\n", e.what());
    return 1;
  }
}

// SPDX-License-Identifier: Apache-2.0
// launch.csv: what starting work costs, with empty kernels. `nodes` is the number of kernels launched or captured.
//   launch_host        host seconds of one asynchronous launch, many in a row
//   launch_round_trip  host seconds from a launch to its end being seen
//   kernel_stream      GPU seconds per kernel, launched one after another
//   kernel_graph       GPU seconds per kernel inside a graph
//   graph_launch_host  host seconds to launch a graph of `nodes`
//   graph_round_trip   host seconds from a graph launch to its end being seen
//   graph_instantiate  host seconds to build the executable graph
#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"

namespace dssim::cuda {
namespace {

constexpr int kMost = 25;

template <typename Work>
double timed(Work work) {
  double before = now_seconds();
  work();
  return now_seconds() - before;
}

}  // namespace

void measure_launch(Bench& bench) {
  cudaStream_t stream = bench.meter.stream();
  Table table = bench.profile.begin("launch", "kernel,nodes,seconds,mad");
  auto wait = [&] { DSSIM_CUDA(cudaStreamSynchronize(stream)); };
  auto add = [&](const char* kernel, int nodes, const std::function<double()>& sample) {
    if (auto reading = bench.meter.measure_host(sample, kMost)) table.row(*reading, kernel, nodes);
  };

  constexpr int kRow = 500;  // fewer than the launch queue holds
  add("launch_host", 1, [&] {
    wait();
    double seconds = timed([&] {
      for (int i = 0; i < kRow; ++i) launch_empty(stream);
    });
    return seconds / kRow;
  });
  add("launch_round_trip", 1, [&] {
    wait();
    return timed([&] {
      launch_empty(stream);
      wait();
    });
  });
  add("kernel_stream", kRow, [&] {
    wait();
    return timed([&] {
             for (int i = 0; i < kRow; ++i) launch_empty(stream);
             wait();
           }) /
           kRow;
  });
  for (int nodes : {1, 10, 100, 300, 1000}) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    DSSIM_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < nodes; ++i) launch_empty(stream);
    DSSIM_CUDA(cudaStreamEndCapture(stream, &graph));
    add("graph_instantiate", nodes, [&] {
      if (executable != nullptr) DSSIM_CUDA(cudaGraphExecDestroy(executable));
      return timed([&] { DSSIM_CUDA(cudaGraphInstantiate(&executable, graph, 0)); });
    });
    DSSIM_CUDA(cudaGraphLaunch(executable, stream));
    add("graph_launch_host", nodes, [&] {
      wait();
      return timed([&] { DSSIM_CUDA(cudaGraphLaunch(executable, stream)); });
    });
    add("graph_round_trip", nodes, [&] {
      wait();
      return timed([&] {
        DSSIM_CUDA(cudaGraphLaunch(executable, stream));
        wait();
      });
    });
    DSSIM_CUDA(cudaGraphExecDestroy(executable));
    DSSIM_CUDA(cudaGraphDestroy(graph));
  }
  if (auto reading = bench.meter.measure([&](int, cudaStream_t s) { launch_empty(s); })) {
    table.row(*reading, "kernel_graph", 1);
  }
  bench.profile.end(table, "launch", bench.notes);
}

}  // namespace dssim::cuda

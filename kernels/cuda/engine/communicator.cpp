// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/engine/communicator.hpp"

#include <string>

#include "kernels/cuda/ops/status.hpp"

#ifdef DSSIM_NCCL
#include <nccl.h>
#endif

namespace dssim::cuda {
namespace {

class Alone final : public Communicator {
 public:
  void all_reduce(__nv_bfloat16*, std::size_t, cudaStream_t) override {}
  void all_gather(const __nv_bfloat16* part, __nv_bfloat16* out, std::size_t count, cudaStream_t stream) override {
    DSSIM_CUDA(cudaMemcpyAsync(out, part, count * sizeof *part, cudaMemcpyDeviceToDevice, stream));
  }
};

#ifdef DSSIM_NCCL
void check_status(ncclResult_t status, const char* call, const char* file, int line) {
  if (status == ncclSuccess) return;
  throw_device_error(call, std::string(ncclGetErrorString(status)) + ": " + ncclGetLastError(nullptr), file, line);
}
#define DSSIM_NCCL_CALL(call) check_status((call), #call, __FILE__, __LINE__)

class Nccl final : public Communicator {
 public:
  explicit Nccl(ncclComm_t comm) : comm_(comm) {}
  ~Nccl() override { ncclCommDestroy(comm_); }
  void all_reduce(__nv_bfloat16* data, std::size_t count, cudaStream_t stream) override {
    DSSIM_NCCL_CALL(ncclAllReduce(data, data, count, ncclBfloat16, ncclSum, comm_, stream));
  }
  void all_gather(const __nv_bfloat16* part, __nv_bfloat16* out, std::size_t count, cudaStream_t stream) override {
    DSSIM_NCCL_CALL(ncclAllGather(part, out, count, ncclBfloat16, comm_, stream));
  }

 private:
  ncclComm_t comm_;
};
#endif

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_communicators(int gpus) {
  std::vector<std::unique_ptr<Communicator>> all;
  if (gpus == 1) {
    all.push_back(std::make_unique<Alone>());
    return all;
  }
#ifdef DSSIM_NCCL
  std::vector<ncclComm_t> comms(static_cast<std::size_t>(gpus));
  DSSIM_NCCL_CALL(ncclCommInitAll(comms.data(), gpus, nullptr));
  for (ncclComm_t comm : comms) all.push_back(std::make_unique<Nccl>(comm));
  return all;
#else
  throw Unavailable("tensor parallelism needs NCCL, which this build does not have");
#endif
}

}  // namespace dssim::cuda

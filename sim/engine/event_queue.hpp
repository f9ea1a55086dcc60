// SPDX-License-Identifier: Apache-2.0
#pragma once

// Events in strict (time, order of insertion). A four-way heap of 32-byte records: children of one parent share two
// cache lines, which is what limits a large queue. Nothing is cancelled: a handler ignores a tag that has become stale.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dssim {

// Receives events. The tag is the receiver's own and is handed back as it was given.
class EventHandler {
 public:
  virtual void on_event(uint64_t tag) = 0;

 protected:
  ~EventHandler() = default;
};

class EventQueue {
 public:
  struct Event {
    double time_s;
    uint64_t sequence;
    EventHandler* handler;
    uint64_t tag;

    bool before(const Event& other) const {
      return time_s < other.time_s || (time_s == other.time_s && sequence < other.sequence);
    }
  };

  bool empty() const { return heap_.empty(); }
  size_t size() const { return heap_.size(); }
  const Event& top() const { return heap_.front(); }

  void push(double time_s, EventHandler& handler, uint64_t tag) {
    const Event event{time_s, next_sequence_++, &handler, tag};
    size_t hole = heap_.size();
    heap_.push_back(event);
    while (hole > 0) {
      const size_t parent = (hole - 1) / kArity;
      if (!event.before(heap_[parent])) break;
      heap_[hole] = heap_[parent];
      hole = parent;
    }
    heap_[hole] = event;
  }

  Event pop() {
    const Event first = heap_.front();
    const Event last = heap_.back();
    heap_.pop_back();
    const size_t count = heap_.size();
    if (count == 0) return first;
    size_t hole = 0;
    while (true) {
      const size_t begin = hole * kArity + 1;
      if (begin >= count) break;
      const size_t end = begin + kArity < count ? begin + kArity : count;
      size_t least = begin;
      for (size_t child = begin + 1; child < end; ++child)
        if (heap_[child].before(heap_[least])) least = child;
      if (!heap_[least].before(last)) break;
      heap_[hole] = heap_[least];
      hole = least;
    }
    heap_[hole] = last;
    return first;
  }

 private:
  static constexpr size_t kArity = 4;

  std::vector<Event> heap_;
  uint64_t next_sequence_ = 0;
};

}  // namespace dssim

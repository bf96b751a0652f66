// The scheduler of the emulator: blocks one after the other, in each one fiber a thread, and what goes wrong said.
//
// Threads run in random order until they meet: at a barrier, or lanes of a warp in a collective function. What cannot
// go on is an error and no hang. Shared memory starts as NaN, between red zones. Global memory lies against pages that
// cannot be touched, its first bytes behind a red zone.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "common.cuh"

namespace emulator {

Thread* thread;
Block block;

namespace {

constexpr size_t STACK = 1 << 17, RED = 64, SHARED = 228 << 10;
constexpr size_t GUARD = 16 << 20;  // on each side of an array: a wrong index is seldom wrong by more
constexpr int NAN_BYTE = 0xff;  // in every floating type
enum State { READY, AT_BARRIER, IN_WARP, DONE };
enum Copies { LATE, EARLY, RANDOM };

struct Copy { void* to; const void* from; bool valid; };
struct Fiber : Thread {
    State state = DONE;
    int number = 0, line = 0, arrived = 0;
    const char* what = "";
    bool made = false;
    ucontext_t start;
    jmp_buf here;
    char* stack = nullptr;
    alignas(16) unsigned char value[2][64];
    std::vector<std::vector<Copy>> copies;  // groups, the open one last
};
struct Warp {
    int waiting = 0, round = 0;
    size_t size = 0;
    alignas(16) unsigned char all[2][32 * 64];  // two rounds: a fast lane may be in the next while others read
};
struct Region { size_t at, bytes; const char* name; };

std::vector<Fiber> fibers(1024);
std::vector<Warp> warps(32);
std::mt19937 random_;
Copies copies_;
jmp_buf scheduler;
sigjmp_buf crashed;
Fiber* running;
std::function<void()> body;
std::string message;
std::map<const void*, Region> regions;
size_t used_shared, dynamic_bytes;
alignas(4096) unsigned char shared_memory[SHARED + (1 << 14)];
void *fault_address, *fault_at;

std::string text(const char* format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    return line;
}

std::string where(const Fiber& f) {
    return text("block (%u, %u, %u), thread %d", block.index.x, block.index.y, block.index.z, f.number);
}

void yield() {
    if (!_setjmp(running->here)) _longjmp(scheduler, 1);
}

// Ends the kernel: this fiber never runs on.
[[noreturn]] void fail(const std::string& what) {
    message = where(*running) + ": " + what;
    _longjmp(scheduler, 2);
}

void arrive(Copy& c) {
    if (!c.to) return;
    if (c.valid) memcpy(c.to, c.from, 16);
    else memset(c.to, 0, 16);
    c.to = nullptr;
}

void some_arrive() {
    if (copies_ != RANDOM) return;
    for (auto& group : running->copies)
        for (auto& c : group)
            if (random_() & 1) arrive(c);
}

void fiber_main() {
    for (;;) {
        body();
        if (running->copies.size() > 1 || !running->copies[0].empty())
            fail("ends while asynchronous copies are under way (a cp_wait<0> is missing)");
        running->state = DONE;
        yield();
    }
}

void run(Fiber& f) {
    running = &f;
    thread = &f;
    switch (_setjmp(scheduler)) {
    case 0:
        if (f.made) _longjmp(f.here, 1);
        f.made = true;
        getcontext(&f.start);
        if (!f.stack) {
            f.stack = static_cast<char*>(mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
            mprotect(f.stack, sysconf(_SC_PAGESIZE), PROT_NONE);
        }
        f.start.uc_stack.ss_sp = f.stack;
        f.start.uc_stack.ss_size = STACK;
        makecontext(&f.start, fiber_main, 0);
        setcontext(&f.start);
        break;
    case 2:
        f.made = false;
    }
}

std::string waiting(int count) {
    // One thread of each kind that waits, and one that has ended.
    std::map<std::string, std::string> kinds;
    std::map<std::string, int> counts;
    for (int i = 0; i < count; i++) {
        const Fiber& f = fibers[i];
        std::string kind = f.state == DONE ? "ended"
            : text("in %s at line %d", f.state == AT_BARRIER ? "sync_threads" : f.what, f.line);
        if (!counts[kind]++) kinds[kind] = text("thread %d ", i) + (f.state == DONE ? "has ended" : "waits " + kind);
    }
    std::string all;
    for (auto& [kind, first] : kinds)
        all += (all.empty() ? "" : ", ") + first + (counts[kind] > 1 ? text(" (and %d more)", counts[kind] - 1) : "");
    return all;
}

void check_red_zones() {
    auto intact = [](const unsigned char* p, size_t n) {
        return std::all_of(p, p + n, [](unsigned char c) { return c == NAN_BYTE; });
    };
    for (auto& [key, r] : regions)
        if (!intact(shared_memory + r.at - RED, RED) || !intact(shared_memory + r.at + r.bytes, RED))
            message = text("block (%u, %u, %u): a store outside the shared array '%s' (%zu bytes)", block.index.x,
                           block.index.y, block.index.z, r.name, r.bytes);
}

void run_block(int count) {
    regions.clear();
    used_shared = 0;
    for (int i = 0; i < count; i++) {
        Fiber& f = fibers[i];
        f.state = READY;
        f.number = i;
        f.lane = i % WARP;
        f.index = {i % block.threads.x, i / block.threads.x % block.threads.y,
                   i / (block.threads.x * block.threads.y)};
        f.copies.assign(1, {});
    }
    for (auto& w : warps) w.waiting = w.round = 0;
    std::vector<int> order((count + WARP - 1) / WARP), lanes(WARP);
    for (int i = 0; i < int(order.size()); i++) order[i] = i * WARP;
    for (int i = 0; i < WARP; i++) lanes[i] = i;
    for (;;) {
        std::shuffle(order.begin(), order.end(), random_);
        bool ran = false;
        for (int first : order) {
            // Half of the warps go as far as they can before another has its turn: where a barrier is missing, warps
            // that keep step would hide it.
            bool far = random_() & 1;
            for (bool on = true; on;) {
                on = false;
                std::shuffle(lanes.begin(), lanes.end(), random_);
                for (int lane : lanes)
                    if (first + lane < count && fibers[first + lane].state == READY) {
                        on = ran = true;
                        run(fibers[first + lane]);
                        if (!message.empty()) return;
                    }
                on = on && far;
            }
        }
        if (ran) continue;
        int ended = 0, at_barrier = 0;
        bool one_line = true;
        for (int i = 0; i < count; i++) {
            ended += fibers[i].state == DONE;
            at_barrier += fibers[i].state == AT_BARRIER;
            one_line = one_line && fibers[i].line == fibers[0].line;
        }
        if (ended == count) break;
        if (at_barrier < count || !one_line) {
            message = text("block (%u, %u, %u): its threads do not meet: ", block.index.x, block.index.y,
                           block.index.z) + waiting(count);
            return;
        }
        for (int i = 0; i < count; i++) fibers[i].state = READY;
    }
    check_red_zones();
}

void on_fault(int, siginfo_t* info, void* context) {
    fault_address = info->si_addr;
#ifdef __x86_64__
    fault_at = reinterpret_cast<void*>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#endif
    siglongjmp(crashed, info->si_signo);
}

// Faults come to us while it lives. The handler needs a stack of its own: the fault may be an overflow of the fiber's.
struct Handlers {
    static constexpr int signals[] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction before[3];
    stack_t stack_before;

    Handlers() {
        static char memory[1 << 16];
        stack_t stack{};
        stack.ss_sp = memory;
        stack.ss_size = sizeof memory;
        sigaltstack(&stack, &stack_before);
        struct sigaction action{};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int i = 0; i < 3; i++) sigaction(signals[i], &action, before + i);
    }
    ~Handlers() {
        for (int i = 0; i < 3; i++) sigaction(signals[i], before + i, nullptr);
        sigaltstack(&stack_before, nullptr);
    }
};

struct Allocation { size_t bytes; char *pages; size_t mapped; };
std::map<uintptr_t, Allocation> allocations;
size_t rounded(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

void barrier(int line) {
    some_arrive();
    running->state = AT_BARRIER;
    running->line = line;
    yield();
}

const void* exchange(const char* what, const void* value, size_t size, int line) {
    some_arrive();
    if (size > 64) fail("the emulator exchanges at most 64 bytes a lane");
    Fiber& f = *running;
    int first = f.number / WARP * WARP;
    Warp& w = warps[f.number / WARP];
    unsigned char* all = w.all[w.round & 1];
    memcpy(all + f.lane * size, value, size);
    f.state = IN_WARP;
    f.line = line;
    f.what = what;
    if (++w.waiting == WARP) {
        for (int i = first; i < first + WARP; i++) {
            const Fiber& other = fibers[i];
            if (other.line != line || strcmp(other.what, what))
                fail(text("the lanes of a warp diverge: this one is in %s at line %d, thread %d in %s at line %d", what,
                          line, i, other.what, other.line));
        }
        for (int i = first; i < first + WARP; i++) fibers[i].state = READY;
        w.waiting = 0;
        w.round++;
    }
    // The last one to arrive lets the others go first, too: any lane may be the fast one.
    yield();
    return all;
}

void* shared(const void* key, size_t bytes, const char* name) {
    if (!key) bytes = dynamic_bytes;
    auto found = regions.find(key);
    if (found == regions.end()) {
        size_t at = rounded(used_shared + RED, 128);
        if (at + bytes + RED > sizeof shared_memory) fail(text("more than %zu bytes of shared memory", SHARED));
        memset(shared_memory + at - RED, NAN_BYTE, RED + bytes + RED);
        used_shared = at + bytes + RED;
        found = regions.emplace(key, Region{at, bytes, name}).first;
    }
    return shared_memory + found->second.at;
}

void check_shared(const void* at, size_t bytes, const char* what, int line) {
    auto p = static_cast<const unsigned char*>(at);
    for (auto& [key, r] : regions)
        if (p >= shared_memory + r.at && p + bytes <= shared_memory + r.at + r.bytes) return;
    fail(text("%s at line %d needs an address inside shared memory", what, line));
}

void check_aligned(const void* at, const char* what, int line) {
    if (reinterpret_cast<uintptr_t>(at) % 16) fail(text("%s at line %d needs an address divisible by 16", what, line));
}

void copy_async(void* to, const void* from, bool valid, int line) {
    check_aligned(to, "cp_async16", line);
    check_shared(to, 16, "cp_async16", line);
    if (valid) {
        check_aligned(from, "cp_async16", line);
        unsigned char read[16];
        memcpy(read, from, 16);  // a fault shows here, whenever the copy arrives
        asm volatile("" ::"r"(read) : "memory");
    }
    running->copies.back().push_back({to, from, valid});
    if (copies_ == EARLY) arrive(running->copies.back().back());
    some_arrive();
}

void commit_copies() {
    running->copies.emplace_back();
    some_arrive();
}

void wait_for_copies(int left) {
    auto& groups = running->copies;
    while (int(groups.size()) - 1 > left) {
        for (auto& c : groups[0]) arrive(c);
        groups.erase(groups.begin());
    }
    some_arrive();
}

}  // namespace emulator

using namespace emulator;

struct Launch {
    unsigned grid[3], threads[3];
    unsigned seed, copies;
    unsigned long shared;
    const void *fault_address, *fault_at;  // out: what was touched, and by which instruction
};

// Runs call(arguments) in every thread; returns what went wrong, or null. `copies`: 0 late, 1 early, 2 at random.
extern "C" const char* fn_launch(Launch* how, void (*call)(void**), void** arguments) {
    random_.seed(how->seed);
    copies_ = Copies(how->copies);
    dynamic_bytes = how->shared;
    block.threads = {how->threads[0], how->threads[1], how->threads[2]};
    block.grid = {how->grid[0], how->grid[1], how->grid[2]};
    int count = int(block.threads.x * block.threads.y * block.threads.z);
    body = [=] { call(arguments); };
    message.clear();
    if (count > int(fibers.size())) return "a block has at most 1024 threads";
    std::vector<unsigned> order(size_t(block.grid.x) * block.grid.y * block.grid.z);
    for (size_t i = 0; i < order.size(); i++) order[i] = unsigned(i);
    std::shuffle(order.begin(), order.end(), random_);
    Handlers handlers;
    if (int fault = sigsetjmp(crashed, 1)) {
        how->fault_address = fault_address;
        how->fault_at = fault_at;
        message = where(*running) + (fault == SIGFPE ? ": an integer is divided by zero"
                                                     : ": memory outside every array is touched");
    } else {
        for (unsigned i : order) {
            block.index = {i % block.grid.x, i / block.grid.x % block.grid.y, i / block.grid.x / block.grid.y};
            run_block(count);
            if (!message.empty()) break;
        }
    }
    if (message.empty()) return nullptr;
    for (auto& f : fibers) f.made = false;  // those that wait never go on
    return message.c_str();
}

// Memory that ends, but for less than 16 bytes, at pages that cannot be touched, filled with NaN.
extern "C" void* fn_allocate(size_t bytes) {
    size_t data = rounded(bytes + RED, size_t(sysconf(_SC_PAGESIZE)));
    auto pages = static_cast<char*>(mmap(nullptr, data + 2 * GUARD, PROT_NONE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (pages == MAP_FAILED) return nullptr;
    char* end = pages + GUARD + data;
    mprotect(pages + GUARD, data, PROT_READ | PROT_WRITE);
    char* at = end - rounded(bytes, 16);
    memset(at - RED, NAN_BYTE, size_t(end - at) + RED);
    allocations[uintptr_t(at)] = {bytes, pages, data + 2 * GUARD};
    return at;
}

extern "C" void fn_free(void* at) {
    auto found = allocations.find(uintptr_t(at));
    munmap(found->second.pages, found->second.mapped);
    allocations.erase(found);
}

// The first allocation beside which something was stored, or null; `*before` says on which side. All borders are mended,
// so that the next kernel is not blamed.
extern "C" void* fn_overrun(int* before) {
    auto touched = [](char* p, size_t n) {
        bool intact = std::all_of(p, p + n, [](char c) { return (unsigned char)c == NAN_BYTE; });
        if (!intact) memset(p, NAN_BYTE, n);
        return !intact;
    };
    char* first = nullptr;
    for (auto& [at, a] : allocations) {
        auto p = reinterpret_cast<char*>(at);
        bool in_front = touched(p - RED, RED), behind = touched(p + a.bytes, rounded(a.bytes, 16) - a.bytes);
        if ((in_front || behind) && !first) {
            first = p;
            *before = in_front;
        }
    }
    return first;
}

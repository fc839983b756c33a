/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Figures of nvmm alone: probe.c, probe_death.c and probe_epochs.c measure them and print "name value" lines; the driver knows from
 * here what each is, and the most that it may be (0: no bound).
 */
#pragma once

/* name, what it is, unit, bound */
#define FIGURES(X)                                                                                  \
	X(local_extra, "nvmm_local() beyond adding an offset to a base", "ns", 1.5)                \
	X(foreign_free, "nvmm_free() of another thread's block", "ns", 15)                         \
	X(round_trip, "a round trip to the daemon", "us", 0)                                       \
	X(connect, "nvmm_connect()", "us", 0)                                                      \
	X(open, "nvmm_heap_open()", "us", 0)                                                       \
	X(first_thread, "the first allocation of a thread", "us", 200)                             \
	X(first_process, "connect, open and the first allocation of a process", "us", 1000)        \
	X(settle_time, "from a client's death until it is settled", "ms", 100)                     \
	X(settle_cpu, "the daemon's work for a client's death", "us", 0)                           \
	X(full_time, "32 threads, 1 GiB, full tables: from their death until settled", "ms", 100)  \
	X(full_exit, "of that, until the kernel has ended the process", "ms", 0)                   \
	X(full_cpu, "the daemon's work for that", "ms", 0)                                         \
	X(full_rate, "what another process allocates meanwhile, by what it does before", "times", 0) \
	X(full_gap, "its longest pause meanwhile", "ms", 0)                                        \
	X(full_before, "its longest pause before", "ms", 0)                                        \
	X(full_power_time, "the same in durability power: until settled", "ms", 100)               \
	X(full_power_exit, "of that, until the kernel has ended the process", "ms", 0)             \
	X(full_power_cpu, "the daemon's work for that", "ms", 0)                                   \
	X(full_power_rate, "what another process allocates, by what it does before", "times", 0)   \
	X(full_power_gap, "its longest pause meanwhile", "ms", 0)                                  \
	X(full_power_before, "its longest pause before", "ms", 0)                                  \
	X(metadata, "of a pool's files is metadata", "%", 3)                                       \
	X(unusable_64, "of a heap is not to be had in 64 B blocks", "%", 0)                        \
	X(unusable_4096, "of a heap is not to be had in 4096 B blocks", "%", 0)                    \
	X(lost_inside, "lost inside a block, at the worst size from 16 B to 1 GiB", "%", 25)       \
	X(lock_pair, "nvmm_mutex_lock() and _unlock(), nobody else's", "ns", 0)                    \
	X(lock_pthread, "the same of a pthread mutex that is shared and robust", "ns", 0)          \
	X(lock_ratio, "the first by the second", "times", 1.3)                                     \
	X(read_pair, "nvmm_rwlock_rdlock() and _unlock(), nobody else's", "ns", 0)                 \
	X(read_pthread, "the same of a pthread rwlock that is shared", "ns", 0)                    \
	X(pair_1, "nvmm_epoch_enter() and _exit(), 1 thread", "ns", 2)                             \
	X(urcu_1, "the same by liburcu, memb", "ns", 0)                                            \
	X(pair_2, "nvmm_epoch_enter() and _exit(), 2 threads", "ns", 2)                            \
	X(urcu_2, "the same by liburcu, memb", "ns", 0)                                            \
	X(defer, "nvmm_free_deferred()", "ns", 15)                                                 \
	X(reuse_some, "from the last reader's exit until 50 000 blocks are free", "ms", 50)        \
	X(reuse_many, "from the last reader's exit until 1 000 000 blocks are free", "ms", 500)    \
	X(beside_alone, "until 10 000 blocks without readers are free", "ms", 0)                   \
	X(beside_stopped, "the same, a reader being stopped in another pool for 30 s", "ms", 0)    \
	X(beside_ratio, "the second by the first", "times", 1.1)                                   \
	X(idle_cpu, "the daemon's work in a second without limbo", "us", 20)

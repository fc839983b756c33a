/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A process's time is summed up of its threads' schedstat, which counts nanoseconds where
 * /proc/<pid>/stat counts ticks.
 */
#include "bench/gauge.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double gauge_median(double *value, size_t n)
{
	qsort(value, n, sizeof(*value), compare);
	return (value[(n - 1) / 2] + value[n / 2]) / 2;
}

void gauge_tell(const char *name, double value)
{
	printf("%s %.3f\n", name, value);
	fflush(stdout);
}

double gauge_cpu_ns(pid_t pid)
{
	char path[300];
	double sum = 0, ns;
	struct dirent *d;
	DIR *dir;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return -1;
	while ((d = readdir(dir)) != NULL) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", (int)pid, d->d_name);
		f = d->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (f && fscanf(f, "%lf", &ns) == 1)
			sum += ns;
		if (f)
			fclose(f);
	}
	closedir(dir);
	return sum;
}

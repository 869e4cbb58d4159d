package Bench;

# What the bench does its measurements with: the bare loop, loads, CPU time and
# memory of processes, rounds, and telling how far it is.
#
#     my $load = Bench::Load->new(fan => clients => 1000, port => ...);
#     my $r = $load->run($rate, $count);  # dies when a sequence is wrong
#     $load->close;
#
# A measurement is a hash of subs, each of which gives numbers of one server;
# rounds() calls them in turn, beginning with another one each time.

use v5.36;
use IO::Select;
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use List::Util qw(min max sum0);
use RT;
use Time::HiRes qw(clock_gettime time);

our $out;               # where programs and results are
our $redis;             # an RT::Redis
our %cpu = (server => -1, load => -1);

# two cores of those that this process may use; the driver, Redis and the loads
# share one, what is measured has the other
sub pin {
    my ($list) = RT::slurp('/proc/self/status')
        =~ /^Cpus_allowed_list:\s*(\S+)/m or return;
    my @cpus = map { /(\d+)-(\d+)/ ? $1 .. $2 : $_ } split /,/, $list;
    return if @cpus < 2;
    system("taskset -cp $cpus[1] $$ > /dev/null") == 0 or return;
    %cpu = (server => $cpus[0], load => $cpus[1]);
}

sub affinity {
    return $cpu{server} < 0 ? ''
        : 'worker_cpu_affinity 1' . '0' x $cpu{server} . ';';
}

# microseconds on a CPU: by the process' own clock, since what /proc says of one
# that runs is as old as its last tick
sub cpu_of (@pids) {
    my $sum = 0;
    for my $pid (@pids) {
        # clock_getcpuclockid(3)
        my $clock = do { use integer; (~$pid << 3) | 2 };
        my $seconds = clock_gettime($clock);
        die "process $pid is gone\n" if $seconds <= 0;
        $sum += $seconds * 1e6;
    }
    return $sum;
}

# KB
sub memory_of (@pids) {
    my %sum;
    for my $pid (@pids) {
        my ($pss) = RT::slurp("/proc/$pid/smaps_rollup") =~ /^Pss:\s+(\d+)/m;
        my ($anon) = RT::slurp("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;
        die "process $pid: no memory\n" if !defined $pss || !defined $anon;
        $sum{pss} += $pss;
        $sum{anon} += $anon;
    }
    return \%sum;
}

# KB that the kernel has for sockets, and for all else that it can't give back
sub kernel_memory {
    my %kb = RT::slurp('/proc/meminfo') =~ /^(\w+):\s+(\d+)/mg;
    return $kb{SUnreclaim};
}

# the bare loop: { pid, port }
sub bare (%opt) {
    my $port = RT::free_port();
    $opt{cpu} //= $cpu{server};
    my $log = RT::dir() . "/bare-$port.log";
    my $pid = RT::spawn(["$out/bare", "port=$port", 'redis=' . $redis->port,
        map { "$_=$opt{$_}" } sort keys %opt], out => $log);
    RT::poll_until(sub {
        die 'the bare loop: ' . RT::slurp($log) if !RT::running($pid);
        return IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port");
    }, 10) // die "the bare loop does not listen\n";
    return { pid => $pid, port => $port };
}

sub end (@bare) { RT::kill_group($_->{pid}) for @bare }

# CPU time of a process in each of what LOAD does; and what that said
sub cost ($pid, $load, $rate, $count) {
    my $before = cpu_of($pid);
    my $r = $load->run($rate, $count);
    my $cost = (cpu_of($pid) - $before) / $r->{done};
    return wantarray ? ($cost, $r) : $cost;
}

# cost() at a rate that leaves time.  Counts in LATE, by name, when a channel's
# next message was there before all clients had the last: then several may have
# gone in one write, which is another thing
sub paced ($late, $name, $pid, $load, $rate, $count, $channels = 1) {
    my ($cost, $r) = cost($pid, $load, $rate, $count);
    $late->{$name}++ if $r->{p99} > 1000 * $channels / $rate;
    return $cost;
}

# { NAME => [values of each round] } of { NAME => SUB }
sub rounds ($n, $tell, %subs) {
    my @names = sort keys %subs;
    my %values;
    for my $round (1 .. $n) {
        $tell->($round, $n);
        for my $name (@names) {
            push @{$values{$name}}, $subs{$name}->();
        }
        push @names, shift @names;
    }
    return %values;
}

# { NAME => [FIELD of each round] } of what rounds() gave, if that were hashes
sub pick ($field, %values) {
    return { map { my $name = $_;
        ($name => [map { $_->{$field} } @{$values{$name}}]) } keys %values };
}

sub median (@values) {
    @values = sort { $a <=> $b } @values;
    my $n = @values;
    return $n % 2 ? $values[$n / 2]
        : ($values[$n / 2 - 1] + $values[$n / 2]) / 2;
}

# [median, least, most] of the ratios within each round
sub ratio ($values, $floor) {
    my @ratios = map { $values->[$_] / ($floor->[$_] || 1e-9) } 0 .. $#$values;
    return [median(@ratios), min(@ratios), max(@ratios)];
}


# progress: parts are [SECONDS that it takes about], in turn

my (@expected, $part, $started);

sub parts (@seconds) {
    @expected = @seconds;
    $part = -1;
    $started = time;
}

sub next_part { $part++ }
sub seconds { return time - $started }

# FRACTION of the current part is done
sub progress ($what, $fraction = 0) {
    my $all = sum0(@expected);
    my $at = sum0(@expected[0 .. $part - 1]) + $fraction * $expected[$part];
    my $left = $all - $at;
    # as slow as it has been so far
    $left *= seconds() / $at if $at > $all / 20;
    say sprintf '[%4d s, %4d s left]  %s', seconds(), $left, $what;
}

# for rounds(): they are what is between the two fractions
sub told ($what, $from = 0, $to = 1) {
    return sub ($round, $n) {
        progress("$what, round $round of $n",
                 $from + ($to - $from) * ($round - 1) / $n);
    };
}

package Bench::Load;

use v5.36;
use JSON::PP qw(decode_json);

sub new ($class, $mode, %opt) {
    my $self = $class->begin($mode, %opt);
    return $self->opened;
}

# does not wait until all is open: opened() does
sub begin ($class, $mode, %opt) {
    pipe my $in, my $to or die "pipe: $!\n";
    pipe my $from, my $out or die "pipe: $!\n";
    my $log = RT::dir() . "/load-$mode.log";
    $opt{cpu} //= $Bench::cpu{load};
    my @argv = ("$Bench::out/load", $mode,
                map { "$_=$opt{$_}" } sort keys %opt);
    my $pid = RT::spawn(sub {
        open STDIN, '<&', $in;
        open STDOUT, '>&', $out;
        exec @argv;
    }, out => $log);
    $to->autoflush(1);
    return bless { pid => $pid, to => $to, from => $from, log => $log,
                   buf => '', what => "@argv[1 .. $#argv]" }, $class;
}

sub opened ($self) {
    $self->{open} = $self->answer(90)->{open};
    return $self;
}

sub answer ($self, $seconds) {
    my $end = Time::HiRes::time() + RT::scale($seconds);
    my $at;
    while (($at = index $self->{buf}, "\n") < 0) {
        my $left = $end - Time::HiRes::time();
        my $said = $left > 0
            && IO::Select->new($self->{from})->can_read($left)
            && sysread $self->{from}, $self->{buf}, 4096,
                length $self->{buf};
        die "load $self->{what}: no answer\n" . RT::slurp($self->{log})
            if !$said;
    }
    return decode_json(substr $self->{buf}, 0, $at + 1, '');
}

# COMMAND: run, post or rest, see load.h.  start() and finish() for those that
# go on beside each other
sub start ($self, $command, $rate = 0, $count = 0) {
    my $to = $self->{to};
    print $to "$command $rate $count\n";
}

sub finish ($self) {
    my $r = $self->answer(600);         # it is not as patient itself
    die "load $self->{what}: $r->{wrong} wrong: $r->{what}\n" if $r->{wrong};
    return $r;
}

sub tell ($self, @command) {
    $self->start(@command);
    return $self->finish;
}

sub run ($self, $rate, $count) { return $self->tell('run', $rate, $count) }

sub close ($self) {
    CORE::close $self->{to};
    RT::poll_until(sub { !RT::running($self->{pid}) }, 5);
    RT::kill_group($self->{pid});
}

1;

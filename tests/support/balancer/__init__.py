"""What the balancer's tests share: workers that stand in, a balancer in the test's own loop."""
